"""Hierarchies of abstract machines (HAMs) as data (Parr & Russell, NIPS 1997).

A machine acts, calls other machines, or leaves open what to do next: a choice. Machines without recursion have
finitely many configurations of program counter and call stack, nodes for short, and run together with a grid world or
any process in which a step from s leads to one of a few successors:

    an action node takes its action, and the node that follows depends on the successor
    a choice node goes to one of its nodes at once

X nodes, S states, A actions, K successors of a state, C choices. The process is `successor` [S, K] and `probability`
[S, A, K]. Node 0 is the root.
"""

from typing import NamedTuple

import numpy as np


class Process(NamedTuple):
    """A Markov decision process with few successors, which pays −1 for every action until it ends."""

    successor: np.ndarray  # [S, K] int32
    probability: np.ndarray  # [S, A, K]
    end: np.ndarray  # [S] bool


class Machines(NamedTuple):
    """The nodes of a hierarchy of machines."""

    action: np.ndarray  # [X] int32, −1 for choice nodes
    following: np.ndarray  # [X, S, K] int32, the node after an action node's step to each successor
    choices: np.ndarray  # [X, S, C] int32, the nodes that a choice node may go to, −1: fewer
    names: tuple[str, ...]  # [X]
    depth: int  # how many choice nodes may follow each other before an action
