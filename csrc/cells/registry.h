// Every cell, one line each. Both engines, the operators and the tests take it from here.
#pragma once

#include "cells/gru.h"
#include "cells/lstm.h"
#include "cells/mgu.h"
#include "cells/simple_rnn.h"

namespace rnncells {

template <class... Cell>
struct CellList {};
template <class... Cell>
constexpr int count_of(CellList<Cell...>) {
  return sizeof...(Cell);
}

using AllCells = CellList<  //
    RnnTanh,                //
    RnnRelu,                //
    Lstm,                   //
    Gru,                    //
    Mgu>;

// Those that take Terms; the CPU engine has them with the lanes over the units.
using OpenCells = CellList<  //
    RnnOpen,                 //
    LstmOpen<false>,         //
    LstmOpen<true>,          //
    GruOpen,                 //
    GruResetBefore,          //
    LstmNormed,              //
    GruNormed>;

}  // namespace rnncells
