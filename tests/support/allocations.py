"""The largest tensor that operations of torch make."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Largest(TorchDispatchMode):
    """In a `with` block: the most numbers of 4 bytes of a tensor that is not in `known` memory."""

    def __init__(self, known: list[torch.Tensor]):
        super().__init__()
        self.known = {t.untyped_storage().data_ptr() for t in known}
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                held = tensor._values() if tensor.is_sparse else tensor
                if held.untyped_storage().data_ptr() not in self.known:
                    self.numbers = max(self.numbers, held.untyped_storage().nbytes() // 4)
        return out
