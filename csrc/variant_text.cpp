#include "variant_text.h"

#include <charconv>
#include <stdexcept>
#include <string_view>
#include <vector>

namespace rnncells {
namespace {

[[noreturn]] void refuse_text(const std::string& why) {
  throw std::invalid_argument("rnncells: variant: " + why);
}

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t end = text.find(at);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

double read_rate(std::string_view name, std::string_view text) {
  double rate = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), rate);
  if (error != std::errc() || end != text.data() + text.size() || !(rate >= 0 && rate < 1)) {
    refuse_text(std::string(name) + " must be a number in [0, 1), got '" + std::string(text) + "'");
  }
  return rate;
}

constexpr std::string_view activation_names[activation_count] = {
    "tanh", "relu", "sigmoid", "hard_sigmoid", "silu", "softsign", "identity"};

Activation read_activation(std::string_view name, std::string_view text) {
  std::string known;
  for (int i = 0; i < activation_count; ++i) {
    if (text == activation_names[i]) return static_cast<Activation>(i);
    known += (i > 0 ? ", " : "") + std::string(activation_names[i]);
  }
  refuse_text(std::string(name) + " '" + std::string(text) + "' is unknown; known: " + known);
}

// Which layer norm a cell can have: what normalises a row of its own has one.
bool has_norm(const CellFacts& cell, Norm norm) {
  const std::string_view name = cell.name;
  if (norm == Norm::none) return !cell.middle;
  if (norm == Norm::gates) return name == "rnn_open" || name == "gru_open" || name == "lstm_normed";
  return name == "rnn_open" || name == "gru_normed" || name == "lstm_open" ||
         name == "lstm_coupled";
}

}  // namespace

Variant read_variant(const std::string& text, const CellFacts& cell) {
  Variant variant;
  const std::vector<std::string_view> parts =
      text.empty() ? std::vector<std::string_view>() : split(text, ';');
  for (const std::string_view part : parts) {
    const size_t equals = part.find('=');
    const std::string_view name = part.substr(0, equals);
    const std::string_view value =
        equals == std::string_view::npos ? std::string_view() : part.substr(equals + 1);
    if (name == "recurrent_dropout") {
      variant.recurrent_dropout = read_rate(name, value);
    } else if (name == "zoneout") {
      const std::vector<std::string_view> rates = split(value, ',');
      if (static_cast<int>(rates.size()) > cell.states) {
        refuse_text("zoneout has " + std::to_string(rates.size()) + " rates, and the cell " +
                    std::to_string(cell.states) + " states");
      }
      for (size_t i = 0; i < rates.size(); ++i) variant.zoneout[i] = read_rate(name, rates[i]);
    } else if (name == "states" && value == "all") {
      variant.whole_states = true;
    } else if (name == "outputs" && value == "last") {
      variant.last_only = true;
    } else if (cell.open && name == "layer_norm" &&
               (value == "gates" || value == "preactivation")) {
      variant.norm = value == "gates" ? Norm::gates : Norm::preactivation;
    } else if (cell.open && name == "activation") {
      variant.activations.of_candidate = read_activation(name, value);
    } else if (cell.open && name == "recurrent_activation") {
      variant.activations.of_gate = read_activation(name, value);
    } else {
      refuse_text("'" + std::string(name) + "' is unknown to the cell '" + cell.name +
                  "'; known: recurrent_dropout, zoneout, states, outputs" +
                  (cell.open ? ", activation, recurrent_activation, layer_norm" : ""));
    }
  }
  if (!has_norm(cell, variant.norm)) {
    refuse_text("the cell '" + std::string(cell.name) + "' has another layer norm, or none");
  }
  return variant;
}

}  // namespace rnncells
