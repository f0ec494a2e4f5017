#!/usr/bin/env python3
"""Writes tests/golden/quantisation.json: codes, scales and numbers that bitsandbytes makes of a matrix.

    pip install torch==2.11.0 bitsandbytes==0.50.2
    python3 make_quantisation_goldens.py
"""
import json
import pathlib

import bitsandbytes.functional as F
import torch

torch.manual_seed(7)
ROWS, COLUMNS = 6, 64
matrix = torch.randn(ROWS, COLUMNS) * torch.tensor([[1.0], [0.02], [30.0], [1e-4], [1.0], [0.3]])
matrix[4] = 0
matrix[5, ::3] = 0
nf4, state = F.quantize_4bit(matrix, blocksize=64, quant_type="nf4")
int8, most, _ = F.int8_vectorwise_quant(matrix.half())
half = matrix.half().float()
golden = {
    "matrix": matrix.flatten().tolist(),
    "table": state.code.tolist(),
    "nf4": {"code": nf4.flatten().tolist(), "scale": state.absmax.tolist(),
            "numbers": F.dequantize_4bit(nf4, state).flatten().tolist()},
    "half": half.flatten().tolist(),
    "int8": {"code": int8.flatten().tolist(), "absmax": most.tolist(),
             "numbers": F.int8_vectorwise_dequant(int8, most).flatten().tolist()},
}
path = pathlib.Path(__file__).with_name("quantisation.json")
path.write_text(json.dumps(golden) + "\n")
