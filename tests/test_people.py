"""people.csv: every problem with its line; who answers for what."""

from __future__ import annotations

from pathlib import Path

import pytest
from sitewarden.errors import ConfigError
from sitewarden.serving.people import ROLES, Person, load_people, parse_people, with_role

HEADER = "id,name,name_en,roles,areas,phone\n"
LI = "p_li,李伟,Li Wei,keeper,aux_store,13800000001\n"


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        parse_people(text, "people.csv")
    return error.value.problems


def test_a_good_file():
    people = parse_people(HEADER + LI + "p_wang, 王芳 ,,officer team_leader,*,+86 138-0000 0002\n", "people.csv")
    assert people["p_li"] == Person(
        id="p_li", name="李伟", name_en="Li Wei", roles=("keeper",), areas=("aux_store",), phone="13800000001"
    )
    wang = people["p_wang"]
    assert (wang.name, wang.name_en, wang.roles) == ("王芳", "王芳", ("officer", "team_leader"))
    assert (wang.areas, wang.phone) == (("*",), "+86 138-0000 0002")


def test_a_page_never_learns_a_phone_number():
    assert parse_people(HEADER + LI, "x")["p_li"].to_json() == {
        "id": "p_li",
        "name": "李伟",
        "name_en": "Li Wei",
        "roles": ["keeper"],
        "areas": ["aux_store"],
    }


def test_order_of_columns_quotes_and_blank_lines():
    text = 'phone,areas,roles,name_en,name,id\n\n,"a b","keeper  officer","Li, Wei",李伟,p_li\n\n'
    li = parse_people(text, "x")["p_li"]
    assert (li.areas, li.roles, li.name_en) == (("a", "b"), ("keeper", "officer"), "Li, Wei")


BROKEN = {
    "P_Li,李伟,,keeper,*,": "id: must be lower-case letters, digits and _ (got 'P_Li')",
    "1li,李伟,,keeper,*,": "id: must be lower-case letters, digits and _ (got '1li')",
    ",李伟,,keeper,*,": "id: must be lower-case letters, digits and _ (got '')",
    " p_li,李伟,,keeper,*,": "id: must be lower-case letters, digits and _ (got ' p_li')",
    '"p_li\n",李伟,,keeper,*,': "id: must be lower-case letters, digits and _ (got 'p_li\\n')",
    "p_" + "x" * 39 + ",李伟,,keeper,*,": f"id: must be lower-case letters, digits and _ (got 'p_{'x' * 39}')",
    "p_li, ,Li,keeper,*,": "name: must not be empty",
    "p_li,李伟,,,*,": f"roles: must name at least one of {', '.join(ROLES)}",
    "p_li,李伟,,keeper boss,*,": f"roles: must be one of {', '.join(ROLES)} (got 'boss')",
    "p_li,李伟,,keeper, ,": "areas: must name area ids, or * for all",
    "p_li,李伟,,keeper,*,call me": "phone: must be digits, or empty (got 'call me')",
    "p_li,李伟,,keeper,*": "must have 6 values: id,name,name_en,roles,areas,phone",
    "p_li,李伟,,keeper,*,,more": "must have 6 values: id,name,name_en,roles,areas,phone",
}


@pytest.mark.parametrize("row", BROKEN)
def test_a_broken_row(row: str):
    line = 3 if "\n" in row else 2
    assert problems(HEADER + row + "\n") == [f"line {line}: {BROKEN[row]}"]


def test_every_problem_at_once():
    found = problems(HEADER + LI + LI + "X,,,boss,,12\np_ok,好,,keeper,*,\n")
    assert [problem.partition(": must")[0] for problem in found] == [
        "line 3: id",
        "line 4: id",
        "line 4: name",
        "line 4: roles",
        "line 4: areas",
        "line 4: phone",
    ]
    assert "got 'p_li' again" in found[0]


@pytest.mark.parametrize(
    ("text", "missing"), [("", "id,name,name_en,roles,areas,phone"), ("id,name,roles,phone\n", "name_en,areas")]
)
def test_missing_columns(text: str, missing: str):
    assert problems(text) == [f"line 1: must have the columns id,name,name_en,roles,areas,phone (missing {missing})"]


def test_what_csv_itself_refuses():
    (problem,) = problems(HEADER + "p_li," + "x" * 200_000 + ",,keeper,*,\n")
    assert problem.startswith("line 2: is not CSV: ")


def test_a_quote_that_is_never_closed():
    (problem,) = problems(HEADER + 'p_li,"李伟,,keeper,*,\n' + LI)
    assert problem == "line 3: must have 6 values: id,name,name_en,roles,areas,phone"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_files_as_spreadsheets_write_them(tmp_path: Path, encoding: str, end: str):
    path = tmp_path / "people.csv"
    path.write_bytes((HEADER + LI).replace("\n", end).encode(encoding))
    assert load_people(path)["p_li"].name == "李伟"


def test_a_file_that_cannot_be_read(tmp_path: Path):
    path = tmp_path / "people.csv"
    with pytest.raises(ConfigError, match=r"people\.csv.*\n.*file is missing: make it, with the header id,name"):
        load_people(path)
    path.write_bytes((HEADER + LI).encode("gb18030"))
    with pytest.raises(ConfigError, match="cannot be read as UTF-8"):
        load_people(path)


def test_who_answers():
    people = parse_people(
        HEADER
        + LI
        + "p_wang,王芳,,officer,*,\np_zhao,赵军,,keeper,hazmat_store boiler_room,\np_sun,孙,,keeper officer,*,\n",
        "x",
    )
    assert [person.id for person in with_role(people, "keeper", "aux_store")] == ["p_li", "p_sun"]
    assert [person.id for person in with_role(people, "keeper", "boiler_room")] == ["p_zhao", "p_sun"]
    assert [person.id for person in with_role(people, "officer", "anywhere")] == ["p_wang", "p_sun"]
    assert with_role(people, "admin", "aux_store") == []


def test_the_people_of_the_example_are_good(root: Path):
    people = load_people(root / "config" / "people.csv")
    assert {"keeper", "officer"} <= {role for person in people.values() for role in person.roles}
