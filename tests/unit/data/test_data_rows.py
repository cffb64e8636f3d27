"""Rows from every kind of file, and one line for every kind of bad one."""

import csv
import gzip
import json

import pytest

from bitdistiller.data.rows import column, hub_rows, load_rows
from bitdistiller.errors import InputError

ROWS = [{"text": "one\ttwo", "n": "1"}, {"text": "Zwölf 🦉\u2028 ", "n": "2"}]


def as_csv(rows):
    import io

    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


KINDS = {
    "json": json.dumps(ROWS),
    "jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS),
    "ndjson": "\n\n".join(map(json.dumps, ROWS)),
    "csv": as_csv(ROWS),
}


def write(path, content: str | bytes):
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("zipped", ["", ".gz"])
@pytest.mark.parametrize("kind", KINDS)
def test_structured_files(tmp_path, kind, zipped):
    assert load_rows(write(tmp_path / f"rows.{kind}{zipped}", KINDS[kind])) == ROWS


@pytest.mark.parametrize("name", ["a.txt", "a.raw", "a.tokens", "a.TXT", "a.txt.gz", "a.raw.gz"])
def test_text_is_one_document_a_line_without_its_line_end(tmp_path, name):
    rows = load_rows(write(tmp_path / name, " one \r\n\n = Two = \nthree"))
    assert [row["text"] for row in rows] == [" one ", "", " = Two = ", "three"]


def test_parquet(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    assert load_rows(tmp_path / "rows.parquet") == ROWS


def test_an_object_with_data(tmp_path):
    assert load_rows(write(tmp_path / "rows.json", json.dumps({"version": 1, "data": ROWS}))) == ROWS


def test_a_directory_is_its_files_in_name_order(tmp_path):
    write(tmp_path / "b.jsonl", json.dumps({"n": 2}))
    write(tmp_path / "a.json.gz", json.dumps([{"n": 1}]))
    assert load_rows(tmp_path) == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", b"", "unknown kind of file; accepted: .json, .jsonl, .csv, .parquet, .txt, .raw"),
        ("noending", b"", "unknown kind of file"),
        ("a.json", b"[1,", "cannot be read as json"),
        ("a.json", b'{"data": {}}', "must hold a list of objects"),
        ("a.json", b'["text"]', "must hold objects, one per row, not str"),
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "cannot be read as jsonl"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', "must hold objects, one per row, not list"),
        ("a.jsonl", b"\n \n", "holds no rows"),
        ("a.csv", b"a,b\n", "holds no rows"),
        ("a.txt", b"", "holds no rows"),
        ("a.txt", b"caf\xe9", "cannot be read as txt"),
        ("a.txt.gz", b"not compressed", "cannot be read as txt"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 1000, mtime=0)[:-9], "cannot be read as jsonl"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}', mtime=0)[:10] + b"\xff" * 20, "cannot be read as jsonl"),
        ("a.parquet", b"PAR1 not really PAR1", "cannot be read as parquet"),
    ],
)
def test_bad_files_are_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        load_rows(tmp_path / name)
    assert message in str(error.value)
    assert str(error.value).startswith(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.jsonl: no such file; give a local file of kind \.json"):
        load_rows(tmp_path / "nowhere.jsonl")


def test_column_takes_the_first_there_is():
    row = {"query": None, "question": 7, "answer": "x"}
    assert column(row, "query", "question", where="math") == "7"
    with pytest.raises(InputError, match="math: a row lacks the column prompt or text; it has query, question, answer"):
        column(row, "prompt", "text", where="math")


@pytest.mark.parametrize("error", [ConnectionError("offline\nmore"), ValueError("unknown split"), OSError()])
def test_an_unreachable_hub_names_the_local_way_out(monkeypatch, error):
    datasets = pytest.importorskip("datasets")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(
        InputError, match=r"dataset a/b cannot be loaded \(\w.*\); download it and give its path"
    ) as got:
        hub_rows("a/b", None, "train")
    assert "\n" not in str(got.value)
