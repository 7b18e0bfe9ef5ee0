#include "cuda_glue/kernels.h"

#include <atomic>
#include <map>
#include <mutex>
#include <stdexcept>

namespace rnncells {
namespace {

constexpr int none = -1;
std::atomic<int> forced{none};

}  // namespace

const gpu::DeviceFacts& device_facts(int device) {
  static std::mutex mutex;
  static std::map<int, gpu::DeviceFacts> known;  // its entries stay where they are
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = known.find(device);
  if (found != known.end()) return found->second;
  gpu::DeviceFacts facts{};
  const char* wrong = gpu::read_device(device, facts);
  if (wrong != nullptr) {
    throw std::runtime_error("rnncells: cuda:" + std::to_string(device) + ": " + wrong);
  }
  return known.emplace(device, facts).first->second;
}

void force_kernel(const std::string& name) {
  gpu::Kernel kernel{};
  if (name.empty()) {
    forced = none;
  } else if (gpu::kernel_of(name.c_str(), kernel)) {
    forced = static_cast<int>(kernel);
  } else {
    throw std::invalid_argument("rnncells: no kernel has the name '" + name + "'");
  }
}

gpu::Choice choose_kernel(const gpu::DeviceFacts& device, const gpu::LayerFacts& layer,
                          bool backward) {
  const int number = forced;
  const auto kernel = static_cast<gpu::Kernel>(number);
  const gpu::Choice choice =
      gpu::choose(device, layer, backward, number == none ? nullptr : &kernel);
  if (choice.refused != nullptr) {
    throw std::runtime_error(std::string("rnncells: the kernel '") + gpu::kernel_name(kernel) +
                             "' was forced and cannot serve this layer: " + choice.refused);
  }
  return choice;
}

}  // namespace rnncells
