"""The queue of a replica's waiting requests, and a heap of those that decode.

Both are written for the simulation's kernel, so they live in plain lists or arrays.
"""

from typing import Any

from model_ops.serving.scheduler_state import NOBODY, ReplicaState, Requests


def enqueue(requests: Requests, state: ReplicaState, request: int) -> None:
    """Put a request at the end of the queue."""
    requests.following[request] = NOBODY
    if state.head == NOBODY:
        state.head = request
    else:
        requests.following[state.tail] = request
    state.tail = request
    state.waiting += 1


def enqueue_first(requests: Requests, state: ReplicaState, request: int) -> None:
    """Put a request at the head of the queue."""
    requests.following[request] = state.head
    if state.head == NOBODY:
        state.tail = request
    state.head = request
    state.waiting += 1


def dequeue(requests: Requests, state: ReplicaState) -> None:
    """Take the first request from the queue."""
    state.head = requests.following[state.head]
    state.waiting -= 1


def push(heap: Any, size: int, key: int) -> None:
    """Add a key to a binary min-heap of `size` keys."""
    i = size
    while i > 0 and heap[(i - 1) // 2] > key:
        heap[i] = heap[(i - 1) // 2]
        i = (i - 1) // 2
    heap[i] = key


def remove(heap: Any, size: int, i: int) -> None:
    """Remove the i-th of a heap's `size` keys; the last one takes its place."""
    last = size - 1
    key = heap[last]
    while i > 0 and heap[(i - 1) // 2] > key:
        heap[i] = heap[(i - 1) // 2]
        i = (i - 1) // 2
    while 2 * i + 1 < last:
        child = 2 * i + 1
        if child + 1 < last and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[i] = heap[child]
        i = child
    heap[i] = key
