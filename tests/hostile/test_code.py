"""No file's code is run: every payload here would write a file, and none does."""

from __future__ import annotations

import ast
import json
import pickle
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from _command import cli
from _here import settings_in
from _tiny import tiny_pipeline
from _tiny_files import make_run

import findnemo
from findnemo.errors import FindnemoError, InputError
from findnemo.metrics import Descriptor
from findnemo.neurons import NeuronSet
from findnemo.runs import Run
from findnemo.runs.trust import require, vouched

SOURCE = Path(findnemo.__file__).parent


class Payload:
    """Unpickling this writes a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


class Program(torch.nn.Module):
    """A descriptor that writes a file as soon as it is loaded."""

    def __init__(self, mark: str):
        super().__init__()
        self.mark = mark

    def forward(self, x):
        return x.flatten(1)[:, :8]

    @torch.jit.export
    def __getstate__(self):
        return (self.mark, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.mark = state[0]
        self.training = state[1]
        torch.save(torch.zeros(1), self.mark)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def model(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def mark(tmp_path, monkeypatch) -> Path:
    """The file that a payload would write; also what modules of the
    model's own folder would write.
    """
    mark = tmp_path / "was-run"
    monkeypatch.chdir(tmp_path)
    yield mark
    assert not mark.exists()


def pickled(mark: Path) -> bytes:
    data = pickle.dumps(Payload(mark))
    pickle.loads(data).close()
    assert mark.exists()  # the payload works
    mark.unlink()
    return data


def rewrite(file: Path, **values) -> None:
    file.write_text(
        json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8"
    )


# what the package calls ---------------------------------------------------------------------------

ONLY_IN = {  # calls that could run what a file says, and the one place that may make them
    "torch.load": "calibration/_published.py",
    "torch.jit.load": "metrics/descriptor.py",
    "subprocess.run": "files/contained.py",
}
NEVER = (
    *(
        "eval",
        "exec",
        "compile",
        "__import__",
        "os.system",
        "os.popen",
        "os.execv",
        "runpy.run_path",
        "np.load",
        "numpy.load",
    ),
    *(
        "torch.hub.load",
        "subprocess.Popen",
        "subprocess.call",
        "subprocess.check_output",
        "torch.package.PackageImporter",
    ),
)
MODULES = (
    "pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "yaml",
    "runpy",
    "ctypes",
)
BUILTIN = {"eval", "exec", "compile", "__import__"}


def name_of(node: ast.expr) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts = [node.attr, *parts]
        node = node.value
    return ".".join([node.id, *parts]) if isinstance(node, ast.Name) else f"?.{'.'.join(parts)}"


@pytest.mark.parametrize(
    "path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE))
)
def test_nothing_in_the_package_can_run_what_a_file_says(path):
    where = str(path.relative_to(SOURCE))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            named = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
            )
            assert not [n for n in named if n.partition(".")[0] in MODULES], (
                f"{where}:{node.lineno}"
            )
        if isinstance(node, ast.Call):
            name = name_of(node.func)
            options = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert name not in NEVER, f"{where}:{node.lineno} calls {name}"
            assert ONLY_IN.get(name, where) == where, f"{where}:{node.lineno} calls {name}"
            assert options.get("trust_remote_code", "False") == "False", f"{where}:{node.lineno}"
            assert (
                options.get("allow_pickle", "False") == options.get("shell", "False") == "False"
            ), f"{where}:{node.lineno}"
            assert name != "torch.load" or options["weights_only"] == "True", (
                f"{where}:{node.lineno}"
            )
            if name.endswith("Model.from_pretrained"):
                assert options["use_safetensors"] == "True", f"{where}:{node.lineno}"


# checkpoints --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["unet/diffusion_pytorch_model", "text_encoder/model", "vae/diffusion_pytorch_model"]
)
@pytest.mark.parametrize("how", ["pickle", "torch.save"])
def test_a_pickle_under_the_name_of_safetensors_is_not_run(model, mark, name, how):
    file = model / f"{name}.safetensors"
    data = pickled(mark)
    file.write_bytes(data) if how == "pickle" else torch.save({"a": Payload(mark)}, file)
    with pytest.raises(FindnemoError):
        findnemo.load(model)


def test_an_index_of_shards_cannot_lead_to_a_pickle(model, mark):
    (model.parent / "evil.bin").write_bytes(pickled(mark))
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    for target in ("../../evil.bin", "evil.bin", str(model.parent / "evil.bin")):
        shutil.copy(model.parent / "evil.bin", model / "unet" / "evil.bin")
        weights.unlink(missing_ok=True)
        index = {"metadata": {"total_size": 8}, "weight_map": {"conv_in.weight": target}}
        (model / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(
            json.dumps(index)
        )
        with pytest.raises(FindnemoError):
            findnemo.load(model)
        assert not mark.exists()


@pytest.mark.parametrize(
    "home",
    [
        ["evil", "UNet2DConditionModel"],  # a module in the component's own folder
        ["os", "system"],
        ["transformers", "AutoModel"],
        ["diffusers", "AutoModel"],
        ["diffusers", "DiffusionPipeline"],
        ["diffusers", "ModularPipeline"],
        ["transformers", "pipeline"],
        ["diffusers_modules.local.evil", "Evil"],
    ],
    ids=lambda home: ".".join(home),
)
def test_a_part_from_elsewhere_is_refused_before_anything_is_imported(model, mark, home):
    code = f"open({str(mark)!r}, 'w')\nclass UNet2DConditionModel: pass\nclass Evil: pass\n"
    for folder in (model, model / "unet", model.parent):
        (folder / "evil.py").write_text(code)
    rewrite(model / "unet" / "config.json", auto_map={"AutoModel": "evil.Evil"})
    rewrite(model / "model_index.json", unet=home)
    with pytest.raises(FindnemoError):
        findnemo.load(model)


@pytest.mark.parametrize(
    "named", [["pipeline", "Evil"], ["evil", "Evil"], "Evil", {"a": 1}, None], ids=str
)
def test_a_pipeline_of_its_own_is_refused(model, mark, named):
    for file in ("pipeline.py", "evil.py"):
        (model / file).write_text(f"open({str(mark)!r}, 'w')\nclass Evil: pass\n")
    rewrite(model / "model_index.json", _class_name=named)
    with pytest.raises(FindnemoError):
        findnemo.load(model)


def test_what_configurations_of_parts_name_is_not_imported(model, mark):
    for folder in ("tokenizer", "text_encoder", "scheduler"):
        (model / folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Evil: pass\n")
    rewrite(
        model / "tokenizer" / "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["evil.Evil", None]},
        tokenizer_class="Evil",
    )
    rewrite(
        model / "text_encoder" / "config.json",
        auto_map={"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"},
    )
    rewrite(model / "scheduler" / "scheduler_config.json", _class_name="evil.Evil")
    with suppress(FindnemoError):
        findnemo.load(
            model
        )  # the classes that model_index.json names are used, whatever the parts say of themselves


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("scheduler/scheduler_config.json", {"beta_start": "a", "num_train_timesteps": [1]}),
        ("scheduler/scheduler_config.json", {"trained_betas": {"a": 1}}),
        ("unet/config.json", {"block_out_channels": "x"}),
        ("unet/config.json", {"down_block_types": ["Evil"]}),
        ("unet/config.json", {"block_out_channels": [10**6, 10**6]}),
        ("text_encoder/config.json", {"hidden_size": -5}),
        ("text_encoder/config.json", {"hidden_size": 10**6}),
        ("vae/config.json", {"latent_channels": None}),
        ("model_index.json", {"unet": 5, "vae": [1, 2, 3]}),
    ],
    ids=str,
)
def test_a_configuration_made_to_break_things_is_an_error_of_ours(model, mark, part, values):
    rewrite(model / part, **values)
    with pytest.raises(FindnemoError):
        findnemo.load(model)


# statistics ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["pickle", "torch.save", "TorchScript"])
def test_statistics_that_are_a_program_are_refused(tmp_path, tiny, mark, how):
    file = tmp_path / "statistics.pt"
    if how == "pickle":
        file.write_bytes(pickled(mark))
    elif how == "torch.save":
        torch.save(([torch.ones(3)], Payload(mark)), file)
    else:
        torch.jit.save(torch.jit.script(Program(str(mark))), file)
    with pytest.raises(InputError, match="statistics"):
        findnemo.calibration.import_statistics(file, tiny)


# runs of somebody else ----------------------------------------------------------------------------


@pytest.fixture
def foreign(saved, tmp_path, monkeypatch) -> tuple[Path, Path]:
    """A run made by somebody else, whose settings name a descriptor inside it that is a program;
    and what that would write.
    """
    out = tmp_path / "run"
    mark = tmp_path / "descriptor-was-run"
    model = findnemo.load(saved)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "somebody"))
    make_run(
        out,
        model,
        {"a red fox": NeuronSet({next(iter(model.value_layers)): [1]}), "a tree": NeuronSet()},
    )
    made = findnemo.calibrate(model, ["a grey owl", "the sea"])
    replace(made, tau=0.4).save(out / "calibration")
    torch.jit.save(torch.jit.script(Program(str(mark))), out / "sscd.pt")
    mark.unlink(missing_ok=True)
    with Run.create(out, settings_in(out)) as run:
        judges = {"descriptor": str(out / "sscd.pt")}
        run.set_meta("settings", settings_in(out) | {"judges": judges})
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "me"))
    return out, mark


@pytest.mark.first(2)
@pytest.mark.parametrize(
    "command",
    [
        ("verify", "RUN"),
        (
            "verify",
            "RUN",
            "--model",
            "MODEL",
        ),  # the model is the user's word, the descriptor still is not
        ("export", "RUN"),
        ("study", "table3", "RUN"),
        ("app", "RUN"),
        ("compare", "MODEL", "--prompts", "TABLE", "--out", "RUN"),
    ],
    ids=" ".join,
)
def test_what_a_run_of_somebody_else_names_is_not_opened(foreign, saved, tmp_path, command):
    (tmp_path / "table.csv").write_text("caption\na red fox\n")
    places = {"RUN": foreign[0], "MODEL": saved, "TABLE": tmp_path / "table.csv"}
    result = cli(*(places.get(word, word) for word in command))
    assert result.status == 2
    assert "was not made by you on this machine" in result.err
    assert not foreign[1].exists()


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "command",
    [("inspect",), ("report",), ("export", "--to", "neurons", "--to", "card")],
    ids=" ".join,
)
def test_a_run_of_somebody_else_is_shown_without_opening_anything(foreign, command):
    assert cli(command[0], foreign[0], *command[1:]).status == 0
    assert not foreign[1].exists()
    with Run.open(foreign[0]) as run:
        assert not vouched(run)  # looking at it is no word for it


def test_with_trust_the_program_is_run_and_the_run_is_ones_own(foreign):
    out, mark = foreign
    result = cli("verify", out, "--trust", "--no-attempts", "--no-attack", "-q")
    assert mark.exists(), result.err  # the payload works: this is what is asked for
    with Run.open(out) as run:
        assert vouched(run)


@pytest.mark.first(1)
@pytest.mark.parametrize("changed", ["descriptor", "its bytes", "source", "folder"])
def test_what_is_changed_after_the_users_word_needs_it_again(foreign, changed):
    out, _ = foreign
    with Run.open(out) as run:
        require(run, trusted=True)
        require(run)
    if changed == "its bytes":
        (out / "sscd.pt").write_bytes(b"another program")
    with Run.create(out, settings_in(out)) as run:
        if changed == "descriptor":
            run.set_meta("settings", settings_in(out) | {"judges": {"descriptor": "/tmp/other.pt"}})
        elif changed != "its bytes":
            run.set_meta(changed, "/elsewhere")
        with pytest.raises(InputError, match="was changed since"):
            require(run)


def test_a_descriptor_is_a_program_and_runs_only_when_it_is_named(tmp_path):
    mark = tmp_path / "was-run"
    torch.jit.save(torch.jit.script(Program(str(mark))), tmp_path / "d.pt")
    mark.unlink(missing_ok=True)
    Descriptor(tmp_path / "d.pt")
    assert mark.exists()
