// Every cell, one line each. The engines, the operators and the tests take it from here.
#pragma once

#include "cells/gru.h"
#include "cells/indrnn.h"
#include "cells/lstm.h"
#include "cells/mgu.h"
#include "cells/simple_rnn.h"
#include "cells/slstm.h"

namespace rnncells {

template <class... Cell>
struct CellList {};
template <class... Cell>
constexpr int count_of(CellList<Cell...>) {
  return sizeof...(Cell);
}

template <class... First, class... Second>
constexpr CellList<First..., Second...> joined(CellList<First...>, CellList<Second...>) {
  return {};
}

// Both engines have these; the CPU's with its lanes over the units, over the batch, or along the
// depth. A cell here takes no Terms.
using AllCells = CellList<  //
    RnnTanh,                //
    RnnRelu,                //
    Lstm,                   //
    Gru,                    //
    Mgu>;

// Those that take Terms: the CPU engine has them with its lanes over the units, which is less to
// compile, and the CUDA engine by steps.
using OpenCells = CellList<  //
    RnnOpen,                 //
    LstmOpen<false>,         //
    LstmOpen<true>,          //
    GruOpen,                 //
    GruResetBefore,          //
    LstmNormed,              //
    GruNormed>;

// The CPU engine alone has these, with its lanes over the units.
using CpuCells = CellList<IndRnn, Slstm>;

}  // namespace rnncells
