"""What the `rwkv` package makes of a file in the authors' layout."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

# The package reads its settings when it is imported, so it runs in a process of its own.
REFERENCE = """
import json, sys
import numpy as np
from rwkv.model import RWKV
path, ids, out = sys.argv[1:]
model = RWKV(model=path, strategy="cpu fp32")
rows = [model.forward(row, None, full_output=True)[0].numpy() for row in json.loads(ids)]
np.save(out, np.stack(rows))
"""


def reference_logits(path: Path, ids: torch.Tensor, version: int = 6) -> torch.Tensor:
    """Logits of a .pth file, row by row: the package has no batch. RWKV-7 is another class there than all before it."""
    out = path.with_name("logits.npy")
    settings = {**os.environ, "RWKV_JIT_ON": "0", "RWKV_CUDA_ON": "0", "RWKV_V7_ON": str(int(version == 7))}
    command = [sys.executable, "-c", REFERENCE, str(path.with_suffix("")), json.dumps(ids.tolist()), str(out)]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return torch.from_numpy(np.load(out))
