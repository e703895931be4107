"""The recurrences: what is computed, with no parameters. One folder per engine, one file per way to compute it."""

from recurra.ops.address import Address as Address
from recurra.ops.block import Block as Block
from recurra.ops.cell import Cell as Cell, Rule as Rule, Vectors as Vectors
from recurra.ops.conv import ShortConv as ShortConv
from recurra.ops.delta import Delta as Delta, LowRank as LowRank
from recurra.ops.descent import Descent as Descent, Net as Net
from recurra.ops.diag import Diag as Diag
from recurra.ops.dplr import DiagonalPlusLowRank as DiagonalPlusLowRank
from recurra.ops.graph import Graph as Graph
from recurra.ops.grid import Grid as Grid
from recurra.ops.least_squares import LeastSquares as LeastSquares
from recurra.ops.linear_system import LinearSystem as LinearSystem
from recurra.ops.liquid import Liquid as Liquid
from recurra.ops.machine import Linked as Linked, Machine as Machine, Tape as Tape
from recurra.ops.outer import Outer as Outer
from recurra.ops.projection import Projection as Projection
from recurra.ops.rings import (
    LOG_SUM as LOG_SUM,
    MAX_PLUS as MAX_PLUS,
    MIN_MAX as MIN_MAX,
    RINGS as RINGS,
    SUM as SUM,
    Ring as Ring,
)
from recurra.ops.scan import IMPLEMENTATIONS as IMPLEMENTATIONS, Scan as Scan, use as use
from recurra.ops.selective import Selective as Selective
from recurra.ops.settle import Settle as Settle
from recurra.ops.state_space import StateSpace as StateSpace
from recurra.ops.synapse import Synapse as Synapse
