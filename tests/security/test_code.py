"""What the service's own code does not do: run data, or read what could be code."""

from __future__ import annotations

import ast

from frontend.settings import ROOT

PACKAGES = ("frontend", "deploy", "retrieval", "model_repository")
IMPORTS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "telnetlib"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "yaml.load"}
CALLS |= {"faiss.read_index", "faiss.deserialize_index", "np.load", "numpy.load", "asyncio.create_subprocess_shell"}


def test_no_data_is_run_as_code() -> None:
    """No pickle and its kin, no eval, no index or array file that is trusted, no shell: in the frontend, the launcher, the
    retrieval and both models. `re.compile` is none of them."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                names = {each.name.partition(".")[0] for each in node.names} if isinstance(node, ast.Import) else set()
                if isinstance(node, ast.ImportFrom):
                    names = {(node.module or "").partition(".")[0]}
                assert not names & IMPORTS, f"{path}:{getattr(node, 'lineno', 0)}"
                if isinstance(node, ast.Call):
                    assert ast.unparse(node.func) not in CALLS, f"{path}:{node.lineno}"
                    shell = [each.value for each in node.keywords if each.arg == "shell"]
                    assert not shell, f"{path}:{node.lineno}"
