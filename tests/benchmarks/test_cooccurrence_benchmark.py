"""benchmarks.cooccurrence: the figures that it writes."""

import json

from benchmarks import cooccurrence


def test_the_benchmark_writes_its_figures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cooccurrence, "BASKETS", 100)
    out = tmp_path / "results/cooccurrence.json"
    cooccurrence.main(rows=2000, products=50, folder=tmp_path, beside="a test", out=out)
    facts = json.loads(out.read_text())
    assert facts["machine"]["beside"] == "a test" and facts["machine"]["cores"]
    assert facts["figures"]["rows"] >= 2000 and facts["figures"]["relations"] > 0
    assert facts["figures"]["peak_memory_gb"] > 0 and "rows_per_second" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
