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

// The CPU engine has these with its lanes over the units, over the batch, or along the depth, and
// the CUDA engine by all its kernels, or by steps where one has two products a step. A cell here
// takes no Terms.
using AllCells = CellList<  //
    RnnTanh,                //
    RnnRelu,                //
    Lstm,                   //
    Gru,                    //
    Mgu>;

// The CPU engine has these with its lanes over the units alone, which is less to compile, and the
// CUDA engine by steps. Open ones take Terms.
using OtherCells = CellList<  //
    RnnOpen,                  //
    LstmOpen<false>,          //
    LstmOpen<true>,           //
    GruOpen,                  //
    GruResetBefore,           //
    LstmNormed,               //
    GruNormed,                //
    IndRnn,                   //
    Slstm>;

}  // namespace rnncells
