"""One thread: the cores of a test machine are shared, and two torch threads on a busy core are slower than one."""

import torch

torch.set_num_threads(1)
