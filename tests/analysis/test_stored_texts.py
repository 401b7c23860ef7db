"""A table's texts come back from its CSV as they were, whatever they begin with."""

import pandas as pd

from promptgeo.analysis.result import Result, store

TEXTS = ["=1+1", "+a", "-b", "@x", "\ttab", "\rreturn", "a\r\nb", "-0.3x", "NA", "null", '"q', "a\nb", "a,b", "'=c"]


def test_texts_and_numbers_come_back_from_a_csv(tmp_path):
    frame = pd.DataFrame({"token": TEXTS, "cosine": [-0.3 - k for k in range(len(TEXTS))], "rank": range(len(TEXTS))})
    frame.loc[0, "cosine"] = None
    plain = frame[~frame["token"].str.contains("\r")].reset_index(drop=True)
    stored = store(tmp_path / "a", "a", "k", {}, [({}, Result(tables={"all": frame, "plain": plain}))])
    pd.testing.assert_frame_equal(stored.tables["all"], frame)
    pd.testing.assert_frame_equal(stored.tables["plain"], plain)
    lines = (tmp_path / "a" / "plain.csv").read_text(encoding="utf-8").splitlines()
    assert lines[:3] == ["token,cosine,rank", "=1+1,,0", "+a,-1.3,1"]


def test_a_table_without_columns_is_no_file_that_nothing_could_read(tmp_path):
    stored = store(tmp_path / "a", "a", "k", {}, [({}, Result(tables={"none": pd.DataFrame()}))])
    assert not stored.tables and [path.name for path in (tmp_path / "a").glob("*.csv")] == ["numbers.csv"]
