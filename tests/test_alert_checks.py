"""What `sitewarden check` says of alerts: channels, ladders and rosters that could not work, and who is not rung."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import pytest
from sitewarden.edge.site import Site, load_site
from sitewarden.errors import ConfigError
from sitewarden.words import Instant

HEAD = """
[site]
id = "plant"
name = "工厂"
name_en = "Plant"

[gateway]
id = "gw1"

[cloud]
url = "https://hq.example"

[alerts]
{alerts}

[[area]]
id = "pit"
name = "池"
name_en = "Pit"

[[area]]
id = "store"
name = "库"
name_en = "Store"

[[bus]]
id = "net"
kind = "tcp"
host = "192.168.1.10"
port = 502

[[device]]
id = "th1"
area = "store"
bus = "net"
unit_id = 1
profile = "xy_md02"

[[device]]
id = "relay"
area = "pit"
bus = "net"
unit_id = 2
profile = "relay_siren"
"""
PEOPLE = """id,name,name_en,roles,areas,phone,email,lang
li,李,Li,keeper,store pit,13800000001,,
wang,王,Wang,officer,*,13800000002,wang@example.com,en
zhao,赵,Zhao,control_room it,*,13800000003,,
chen,陈,Chen,vice_president,*,,,
"""
SMS = 'id = "sms"\nkind = "sms"\nserial = "/dev/serial/by-id/modem"\n'
USED = 'channels = ["sms"]'
SIREN = 'id = "b"\nkind = "beacon"\nparts = { siren = "pit.relay.siren", red = "pit.relay.lamp" }\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in (("key", "token-0001"), ("bad", "no token"), ("empty", "")):
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(*tables: str, alerts: str = USED, people: str = PEOPLE) -> Site:
    Path("people.csv").write_text(people, "utf-8")
    Path("site.toml").write_text(HEAD.format(alerts=alerts) + "".join(f"\n{table}\n" for table in tables), "utf-8")
    return load_site(Path("site.toml"))


def problems(*tables: str, alerts: str = USED, people: str = PEOPLE) -> list[str]:
    """Without where they stand."""
    with pytest.raises(ConfigError) as caught:
        load(*tables, alerts=alerts, people=people)
    return [re.sub(r" \[[^\[\]]*line \d+\]$", "", problem) for problem in caught.value.problems]


def channel(text: str) -> str:
    return f"[[channel]]\n{text}"


GOOD = channel(SMS)


def test_the_good_site_is_good(folder: Path):
    assert load(GOOD).warnings == ()


# --- channels ---

NEW = 'id = "x"\nkind = '
ROBOT = NEW + '"wecom"\nkey_file = "key"\n'
MAIL = NEW + '"mail"\nhost = "smtp.example.com"\nsender = "gw@example.com"\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            NEW + '"sms"\nserial = "m"\nsender = "a@b.c"',
            'channel[1].sender: does not belong to kind "sms" but to "mail": take it out',
        ),
        (
            ROBOT + 'secret_file = "key"',
            (
                'channel[1].secret_file: does not belong to kind "wecom"'
                ' but to "dingtalk" or "feishu" or "lark": take it out'
            ),
        ),
        (
            ROBOT + 'key = "abc123"',
            (
                "channel[1].key: secrets never stand in site.toml: write it into a file that only the gateway can read,"
                " and name that file in key_file"
            ),
        ),
        (
            ROBOT + "per_minute = 5",
            (
                'channel[1].per_minute: unknown key; did you mean "per_min"?'
                " (known: id, kind, key_file, base_url, per_min, timeout_s, ca_file, form, areas, roles)"
            ),
        ),
        (
            NEW + '"wecom"\nkey_file = "bad"',
            "channel[1].key_file: must be the robot's key, or its whole address: …/cgi-bin/webhook/send…",
        ),
        (NEW + '"wecom"\nkey_file = "empty"', 'channel[1].key_file: file is empty (got "empty")'),
        (NEW + '"dingtalk"', "channel[1].key_file: is required: text in quotes"),
        (
            ROBOT + 'base_url = "http://robot.example"',
            "channel[1].base_url: must begin with https:// (http:// only to this machine)",
        ),
        (
            ROBOT + 'areas = ["pitt"]',
            'channel[1].areas[0]: must name a [[area]]; did you mean "pit"? (known: pit, store) (got "pitt")',
        ),
        (
            ROBOT + 'roles = ["keper"]',
            (
                'channel[1].roles[0]: must name a role; did you mean "keeper"? (known: admin, contractor, control_room,'
                ' hr, inspector, it, keeper, manager, officer, team_leader, vice_president, worker) (got "keper")'
            ),
        ),
        (
            NEW + '"feishu"\nkey_file = "key"\nopen_ids = { lii = "ou" }',
            (
                'channel[1].open_ids.lii: must name a person of people.csv; did you mean "li"?'
                ' (known: chen, li, wang, zhao) (got "lii")'
            ),
        ),
        (
            MAIL + 'security = "ssl"',
            'channel[1].security: must be one of "tls", "starttls", "plain", "plain_anywhere" (got "ssl")',
        ),
        (
            MAIL + 'security = "plain"',
            'channel[1].security: "plain" is for a server on this machine; choose "tls" or "starttls"',
        ),
        (MAIL.replace("gw@", "gw"), "channel[1].sender: must be an e-mail address, as alarms@example.com"),
        (
            MAIL + 'password_file = "none"',
            (
                "channel[1].password_file: file is missing; a relative name starts in the folder of site.toml"
                ' (got "none")'
            ),
        ),
        (MAIL + 'password_file = "key"', "channel[1].username: is required beside a password"),
        (
            SMS.replace('"sms"\nk', '"x"\nk'),
            'channel[1].serial: must be unique: channel[0] has it too (got "/dev/serial/by-id/modem")',
        ),
        (
            NEW + '"sms"\nserial = "m"\nsmsc = "centre"',
            "channel[1].smsc: must be the number of a message centre, such as +8613800100500, or empty",
        ),
        (
            NEW + '"sms"\nserial = "m"\npower_output = "pit.relay.sirn"',
            (
                "channel[1].power_output: must name a writable output, as area.device.output;"
                ' did you mean "pit.relay.siren"? (known: pit.relay.lamp, pit.relay.siren) (got "pit.relay.sirn")'
            ),
        ),
        (
            SIREN.replace("pit.relay.lamp", "pit.relay.siren"),
            'channel[1].parts.red: must be unique: channel[1].parts.siren switches it too (got "pit.relay.siren")',
        ),
        (
            SIREN.replace("siren = ", "horn = "),
            'channel[1].parts.horn: must be one of "siren", "red", "amber", "green" (got "horn")',
        ),
        (
            NEW + '"beacon"\nparts = { green = "pit.relay.lamp" }',
            "channel[1]: it has neither a siren nor a red or amber lamp: nobody would notice an alarm",
        ),
        (
            SIREN + 'lamp_test = "monday"',
            'channel[1].lamp_test: must be a day and a time such as "mon 10:00", or empty (got "monday")',
        ),
        (
            NEW + '"speech"\nclips = "sounds"',
            'channel[1].clips: must be a folder, relative to site.toml (got "sounds")',
        ),
        (
            NEW + '"speech"\nreadings = { "单县" = "shan4" }',
            "channel[1].readings.单县: needs 2 syllable(s) such as shan4 (got 'shan4')",
        ),
    ],
)
def test_a_channel_that_could_not_work(folder: Path, text: str, problem: str):
    assert problems(GOOD, channel(text)) == [problem]


def test_a_kind_that_nobody_knows_has_one_problem(folder: Path):
    (problem,) = problems(GOOD, channel('id = "x"\nkind = "sm"\nport = 7\nserial = 9'))
    assert problem.startswith(
        'channel[1].kind: must be one of "webhook", "wecom", "dingtalk", "feishu", "lark", "mail"'
    )


def test_plain_mail_over_the_network_is_a_warning(folder: Path):
    alerts = 'channels = ["sms", "x"]'
    (warning,) = load(GOOD, channel(MAIL + 'security = "plain_anywhere"'), alerts=alerts).warnings
    assert warning.startswith("channel[1].security: alarms cross the network unencrypted")


# --- ladders ---


def ladder(steps: str, name: str = "own") -> str:
    return f'[[ladder]]\nid = "{name}"\nsteps = [{steps}]'


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (ladder('{ at_s = 0, to = ["keeper"] }', "standard"), 'ladder[0].id: is the name of a ladder that is there already: choose another one (got "standard")'),  # noqa: E501
        (
            ladder('{ at_s = 60, to = ["keeper"] }, { at_s = 60, to = ["officer"] }'),
            "ladder[0].steps[1].at_s: must be later than the step before it, 60 (got 60)",
        ),
        (
            ladder('{ at_s = 0, to = ["keeper"], add = ["smss"] }'),
            (
                'ladder[0].steps[0].add[0]: must name a kind of channel, siren or *; did you mean "sms"? (known: *,'
                ' beacon, dingtalk, feishu, lark, mail, siren, sms, speech, webhook, wecom) (got "smss")'
            ),
        ),
        (ladder("{ at_s = 0 }"), "ladder[0].steps: tell nobody: name roles in `to`"),
        (
            ladder('{ at_s = 0, to = ["keeper"], colour = "pink" }'),
            'ladder[0].steps[0].colour: must be one of "", "yellow", "red" (got "pink")',
        ),
        ('[[ladder]]\nid = "own"\nsteps = []', "ladder[0].steps: must have at least one entry (got [])"),
    ],
)  # fmt: skip
def test_a_ladder_that_nobody_could_climb(folder: Path, table: str, problem: str):
    assert problems(GOOD, table) == [problem]


def test_which_ladder_a_priority_has(folder: Path):
    own = ladder('{ at_s = 0, to = ["keeper"] }, { at_s = 60, to = ["officer"], add = ["sms"], action = "freeze" }')
    site = load(GOOD, own, alerts=USED + '\nladders = { "3" = "own" }\ngroup_wait_s = { "3" = 10 }')
    assert site.ladder_of == {1: "priority_1", 2: "priority_2", 3: "own", 4: "notice"}
    assert site.system_ladder == "system"
    assert [rung.at_s for rung in site.ladders["own"].rungs] == [0, 60]
    assert site.group_wait_s == {1: 0, 2: 0, 3: 10, 4: 30}
    for key, name in (("3", "owm"), ("system", "own"), ("system", "standard")):
        (problem,) = problems(GOOD, own, alerts=USED + f'\nladders = {{ {key} = "{name}" }}')
        if key == "3":
            assert problem.startswith('alerts.ladders.3: must name a [[ladder]]; did you mean "own"? (known: notice,')
        else:
            why = "must not freeze work: a fault of the system is no danger in the plant"
            assert problem == f'alerts.ladders.system: {why} (got "{name}")'
    (problem,) = problems(GOOD, own, alerts=USED + '\nladders = { "5" = "own" }')
    assert problem == 'alerts.ladders.5: must be one of "1", "2", "3", "4", "system" (got "5")'


def test_alerts_say_for_each_priority_when_people_are_told_again(folder: Path):
    site = load(GOOD, alerts=USED + '\nrepeat_s = { "1" = 60, "3" = 3600 }\nrealarm_s = { "2" = 0 }')
    assert site.rules
    for rule in site.rules:
        assert rule.repeat_s == {1: 60, 2: 900, 3: 3600}, rule.id
        assert rule.realarm_s == {1: 1800, 2: 0}, rule.id


def test_a_role_that_a_ladder_tells_and_nobody_holds_is_a_warning(folder: Path):
    people = PEOPLE.replace("vice_president", "worker")
    (warning,) = load(GOOD, people=people).warnings
    assert warning.startswith(
        "alerts.ladders: nobody is vice_president, whom priority_1, priority_2, standard would tell"
    )


# --- the roster ---

SHIFT = '[[shift]]\nid = "day"\nfrom = "08:00"\nto = 20:00:00\n'


def duty(**changes: str) -> str:
    fields = {"person": '"li"', "role": '"keeper"', "shift": '"day"', **changes}
    return SHIFT + "\n[[duty]]\n" + "".join(f"{key} = {value}\n" for key, value in fields.items())


def absence(**changes: str) -> str:
    fields = {"person": '"wang"', "from": "2026-10-01", "to": "2026-10-07", "substitute": '"zhao"', **changes}
    return "[[absence]]\n" + "".join(f"{key} = {value}\n" for key, value in fields.items())


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (SHIFT.replace("08:00", "8:00"), 'shift[0].from: must be a time of day such as "08:00" (got "8:00")'),
        (
            SHIFT + 'days = ["mon", "mo"]',
            'shift[0].days[1]: must be one of "mon", "tue", "wed", "thu", "fri", "sat", "sun" (got "mo")',
        ),
        (SHIFT + 'days = ["mon", "mon"]', 'shift[0].days[1]: must stand in the list only once (got "mon")'),
        (SHIFT + SHIFT, 'shift[1].id: must be unique: shift[0] has it too (got "day")'),
        (
            duty(person='"lii"'),
            (
                'duty[0].person: must name a person of people.csv; did you mean "li"?'
                ' (known: chen, li, wang, zhao) (got "lii")'
            ),
        ),
        (duty(role='"officer"'), 'duty[0].role: li does not hold it in people.csv (keeper) (got "officer")'),
        (duty(shift='"dya"'), 'duty[0].shift: must name a [[shift]]; did you mean "day"? (known: day) (got "dya")'),
        (
            duty(areas='["pitt"]'),
            'duty[0].areas[0]: must name a [[area]]; did you mean "pit"? (known: pit, store) (got "pitt")',
        ),
        (duty(every_weeks="2"), "duty[0].from: is required beside every_weeks: the first week"),
        (duty(**{"from": '"2026-13-01"'}), 'duty[0].from: must be a day that exists (got "2026-13-01")'),
        (
            duty(**{"from": "2026-10-02", "to": "2026-10-01"}),
            'duty[0].to: must not be before from, 2026-10-02 (got "2026-10-01")',
        ),
        (
            absence(substitute='"chenn"'),
            (
                'absence[0].substitute: must name a person of people.csv; did you mean "chen"?'
                ' (known: chen, li, wang, zhao) (got "chenn")'
            ),
        ),
        (
            absence(to="2026-09-30"),
            'absence[0].to: must be later than from, 2026-10-01 (got "2026-09-30")',
        ),
        (absence(to='"2026-10-32"'), 'absence[0].to: must be a day that exists (got "2026-10-32")'),
        (
            absence(to='"tomorrow"'),
            (
                'absence[0].to: must be a date, or a date and a time, such as "2026-10-01 08:00", by the clock of the'
                ' site (got "tomorrow")'
            ),
        ),
        (
            absence() + absence(person='"zhao"', substitute='"wang"', **{"from": "2026-10-05"}),
            (
                "absence[1].substitute: goes round in a circle, zhao -> wang -> zhao: name somebody who is there"
                ' (got "wang")'
            ),
        ),
        (
            absence(substitute='"wang"'),
            'absence[0].substitute: goes round in a circle, wang -> wang: name somebody who is there (got "wang")',
        ),
    ],
)
def test_a_roster_that_makes_no_sense(folder: Path, table: str, problem: str):
    assert problems(GOOD, table) == [problem]


def test_a_person_is_on_duty_only_where_they_answer_for(folder: Path):
    people = (
        PEOPLE.replace("li,李,Li,keeper,store pit", "li,李,Li,keeper,store") + "sun,孙,Sun,keeper,pit,13800000009,,\n"
    )
    told = problems(GOOD, duty(areas='["store", "pit"]'), people=people)
    assert told == ['duty[0].areas[1]: li does not answer for it in people.csv (got "pit")']


def test_the_roster_of_the_file_is_the_roster_of_the_site(folder: Path):
    site = load(GOOD, duty(), absence(to="2026-10-07T12:00:00"))
    for hour, person in ((11, "zhao"), (12, "wang")):
        moment = dt.datetime.fromisoformat(f"2026-10-07 {hour}:00+08:00")
        at = Instant(utc_ms=round(moment.timestamp() * 1000), mono_s=0.0, boot="b")
        assert [holder.person for holder in site.roster.holders("officer", "pit", at)] == [person]
        assert [holder.person for holder in site.roster.holders("keeper", "pit", at)] == ["li"]


# --- who can be rung ---

NOTHING_RINGS = "alerts.channels: nothing rings a phone and nothing sounds at the post for "


def test_a_site_that_rings_nobody_is_refused(folder: Path):
    group = channel(ROBOT)
    (problem,) = problems(group, channel(MAIL.replace('"x"', '"m"')), alerts='channels = ["x", "m"]')
    assert problem.startswith(NOTHING_RINGS + '"store", "pit": add a [[channel]] of kind "sms"')


def test_an_sms_channel_that_is_not_in_use_rings_nobody(folder: Path):
    assert problems(GOOD, alerts="channels = []")[0].startswith(NOTHING_RINGS)


def test_whoever_must_act_needs_a_phone_number(folder: Path):
    people = PEOPLE.replace("13800000001", "").replace("13800000002", "")
    assert problems(GOOD, people=people) == [
        "people.csv: li (keeper) has no phone number, so nothing rings: write it into the column phone",
        "people.csv: wang (officer) has no phone number, so nothing rings: write it into the column phone",
    ]


def test_substitutes_are_rung_as_well(folder: Path):
    people = PEOPLE.replace("13800000003", "")
    assert problems(GOOD, absence(), people=people) == [
        (
            "people.csv: zhao (officer instead of wang) has no phone number, so nothing rings:"
            " write it into the column phone"
        )
    ]


@pytest.mark.parametrize("sounder", [SIREN, 'id = "b"\nkind = "speech"\n'])
def test_a_sounder_at_the_post_is_enough_where_it_is_heard(folder: Path, sounder: str):
    people = PEOPLE.replace("13800000001", "").replace("13800000002", "")
    used = 'channels = ["b"]'
    sounder += "siren = [2, 3]\n" if "beacon" in sounder else ""
    assert load(channel(sounder), alerts=used, people=people).warnings == ()
    (problem,) = problems(channel(sounder + 'areas = ["pit"]'), alerts=used, people=people)
    assert problem.startswith(NOTHING_RINGS + '"store":'), "nothing is said of the pit"


def test_a_priority_that_no_sounder_sounds_for_is_a_warning(folder: Path):
    """The alarms of both areas are of priority 3: a siren for priority 1 never sounds for them."""
    used, phoneless = 'channels = ["sms", "b"]', PEOPLE.replace("13800000001", "")
    (warning,) = load(GOOD, channel(SIREN), alerts=used, people=phoneless).warnings
    assert warning.startswith('alerts.channels: an alarm of priority 3 rings nobody in "store", "pit": widen siren')
    assert load(GOOD, channel(SIREN + "siren = [1, 3]"), alerts=used, people=phoneless).warnings == ()
    assert load(GOOD, channel(SIREN), alerts=used).warnings == (), "everybody who must act has a phone"


def test_a_modem_where_nobody_has_a_phone_is_a_warning(folder: Path):
    """A siren rings the posts; the modem beside it would send nothing, and nobody would know why."""
    used, siren = 'channels = ["sms", "b"]', channel(SIREN + "siren = [1, 2, 3]")
    nobody = re.sub("138[0-9]{8}", "", PEOPLE)
    (warning,) = load(GOOD, siren, alerts=used, people=nobody).warnings
    assert warning.startswith("channel[0]: reaches nobody: no person has a phone number: write them into the column")
    assert load(GOOD, siren, alerts=used).warnings == ()


def test_a_siren_for_no_priority_is_no_sounder(folder: Path):
    used = 'channels = ["b"]'
    assert problems(channel(SIREN + "siren = []"), alerts=used)[0].startswith(NOTHING_RINGS)


def test_lamps_that_nobody_watches_over_are_a_warning(folder: Path):
    """Killed or without power, a gateway leaves green behind."""
    lamps, used = SIREN.replace("red =", "green ="), 'channels = ["sms", "b"]'
    (warning,) = load(GOOD, channel(lamps), alerts=used).warnings
    assert warning.startswith("channel[1].has_watchdog: when the gateway dies, its lamps stay as they are")
    assert load(GOOD, channel(lamps + "has_watchdog = true"), alerts=used).warnings == ()
    assert load(GOOD, channel(SIREN), alerts=used).warnings == (), "it has neither amber nor green"


def test_a_lamp_alone_rings_nobody(folder: Path):
    lamp = NEW + '"beacon"\nparts = { red = "pit.relay.lamp" }'
    assert problems(channel(lamp), alerts='channels = ["x"]')[0].startswith(NOTHING_RINGS)


def test_a_site_may_put_up_with_it_loudly(folder: Path):
    (warning,) = load(alerts="unreachable_ok = true").warnings
    assert warning.startswith(f"alerts.unreachable_ok: PEOPLE WHO MUST ACT CANNOT BE RUNG: {NOTHING_RINGS}")
    assert load(GOOD, alerts=USED + "\nunreachable_ok = true").warnings == (), "nothing to put up with"


def test_a_site_without_alerts_is_told_so(folder: Path):
    load(GOOD)
    text = Path("site.toml").read_text("utf-8").replace(f"[alerts]\n{USED}\n", "")
    Path("site.toml").write_text(text[: text.index("[[channel]]")], "utf-8")
    (warning,) = load_site(Path("site.toml")).warnings
    assert warning.startswith("alerts: there is no [alerts] table: nobody is told of an alarm but by looking at a page")


# --- people.csv ---


def test_people_have_addresses_and_languages(folder: Path):
    site = load(GOOD)
    assert (site.people["wang"].email, site.people["wang"].lang) == ("wang@example.com", "en")
    assert (site.people["li"].email, site.people["li"].lang) == ("", "zh")
    told = problems(GOOD, people=PEOPLE.replace("wang@example.com,en", "wang at home,de"))
    assert told == [
        "people.csv: line 3: email: must be one address, name@domain, or empty (got 'wang at home')",
        "people.csv: line 3: lang: must be zh or en, or empty (got 'de')",
    ]
    old = "".join(",".join(line.split(",")[:6]) + "\n" for line in PEOPLE.splitlines())
    assert load(GOOD, people=old).people["wang"].lang == "zh"
