"""What is written is what the safetensors library reads; what is read by row is what it wrote."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from findnemo.files.tensors import DTYPES, Lazy, read_header, read_rows, write, write_rows


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    made = {f"x.{name}": (torch.rand(4, 3) * 2).to(dtype) for name, dtype in DTYPES.items()}
    return made | {
        "scalar": torch.tensor(2.5),
        "none": torch.zeros(0, 3),
        "turned": torch.rand(2, 5).T,
        "é": torch.ones(2, 2, 2),
    }


def test_a_file_is_read_by_the_library_as_it_was_meant(tensors, tmp_path):
    lazy = {
        name: Lazy(t.dtype, tuple(t.shape), lambda t=t: t) if k % 2 else t
        for k, (name, t) in enumerate(tensors.items())
    }
    write(tmp_path / "x.safetensors", lazy, {"a": "b\n"})
    read = load_file(tmp_path / "x.safetensors")
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(read[name].double(), tensor.double())
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {"a": "b\n"}
    header, metadata = read_header(tmp_path / "x.safetensors")
    assert {name: e.shape for name, e in header.items()} == {
        name: tuple(t.shape) for name, t in tensors.items()
    }
    assert metadata == {"a": "b\n"}


def test_rows_are_read_and_written_where_they_are(tensors, tmp_path):
    save_file({name: t.contiguous() for name, t in tensors.items()}, tmp_path / "x.safetensors")
    header, _ = read_header(tmp_path / "x.safetensors")
    for name in ("x.F32", "x.BF16", "x.F8_E4M3", "turned"):
        assert torch.equal(
            read_rows(tmp_path / "x.safetensors", header[name], slice(1, 3)).float(),
            tensors[name][1:3].float(),
        )
    write_rows(tmp_path / "x.safetensors", header["x.F16"], 2, torch.tensor([[1.0, 2.0, 3.0]]))
    read = load_file(tmp_path / "x.safetensors")
    for name, tensor in tensors.items():
        want = tensor.clone()
        if name == "x.F16":
            want[2] = torch.tensor([1.0, 2.0, 3.0])
        assert torch.equal(read[name].float(), want.float()), name
