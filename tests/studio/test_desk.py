"""The desk: fair turns, nothing lost, nothing of another's, whatever goes wrong."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.studio import fakes

from photomaker import images, weights
from photomaker.errors import IdentityError, NotThere, OutputError, PhotoError, QueueFull, SettingsError
from photomaker.studio.desk.desk import Desk
from photomaker.studio.desk.limits import Limits
from photomaker.studio.desk.records import Upload
from photomaker.studio.desk.store import IDENTITY, PICTURE
from photomaker.studio.desk.workers import TRIES, DrawerLost
from photomaker.studio.orders.order import Order, Someone
from photomaker.studio.orders.plain import PlainLora, PlainOrder, PlainPose, PlainStructure
from photomaker.types import Identity, Request, Sampling

PROMPT = "a photo of a woman img in the snow"


@pytest.fixture
def made(monkeypatch):
    return fakes.stepping_engine(monkeypatch)


@pytest.fixture
def method(made):
    return made[1]


@pytest.fixture
def open_desk(made, tmp_path):
    desks = []

    def opened(**options):
        desks.append(Desk(made[0], tmp_path / "desk", **options))
        return desks[-1]

    yield opened
    made[1].gate.set()
    for desk in desks:
        desk.close()


@pytest.fixture
def desk(open_desk):
    return open_desk().start()


def ada(desk, owner="me", name="Ada", who=0):
    return desk.add_person(
        owner, [Upload("1.png", fakes.png(who=who)), Upload("2.png", fakes.png(who=who))], name
    )


def order(*people, n=1, steps=2, **more):
    return PlainOrder(tuple(people), more.pop("prompts", (PROMPT,)), n=n, steps=steps, **more)


def end_of(desk, job, owner="me"):
    return list(desk.events(owner, job.id))[-1]


def files(desk):
    return sorted(
        path.name for path in desk.store.folder.rglob("*") if path.suffix in (".png", ".safetensors", ".part")
    )


def wait_until(true, seconds=10):
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.01)


# ---- people


def test_a_person_is_kept_with_what_the_coach_says(desk):
    person = ada(desk)
    assert (person.name, person.photos, person.method) == ("Ada", 2, "fake")
    assert [one["name"] for one in person.report["photos"]] == ["1.png", "2.png"]
    assert desk.person("me", person.id) == desk.person("me", "Ada") == person
    assert desk.people("me") == [person]
    assert Identity.load(desk.identity_file("me", "Ada")).notes["name"] == "Ada"
    with Image.open(desk.portrait("me", person.id)) as portrait:
        assert portrait.size == (256, 256)


def test_the_newest_of_a_name_is_meant_and_an_id_always(desk):
    old, new = ada(desk), ada(desk)
    assert desk.person("me", "Ada") == new
    assert desk.person("me", old.id) == old
    assert desk.rename_person("me", old.id, " Ada  the first ").name == "Ada the first"


def test_the_same_photos_are_found_again_where_that_will_do(desk):
    photos = [Upload("1.png", fakes.png())]
    first = desk.add_person("me", photos, reuse=True)
    assert desk.add_person("me", photos, reuse=True) == first
    assert desk.add_person("me", photos).id != first.id
    assert desk.add_person("you", photos, reuse=True).id != first.id


def test_people_are_mixed(desk):
    first, second = ada(desk), ada(desk, name="Ben", who=255)
    between = desk.mix("me", "Ada", second.id, 0.5, "Both")
    assert between.photos == 4
    assert desk.identity("me", "Both").notes["name"] == "Both"
    assert desk.portrait("me", "Both") is not None
    with pytest.raises(SettingsError, match="share is 2"):
        desk.mix("me", first.id, second.id, 2)
    with pytest.raises(NotThere, match="Eve"):
        desk.mix("me", first.id, "Eve", 0.5)


@pytest.mark.parametrize(
    ("photos", "words"),
    [
        ([], "there are no photos"),
        ([Upload("a.txt", b"hello")], r"a\.txt is not a picture"),
        ([Upload("../../etc/a.png", fakes.png(faces=0))], r"no face was found in a\.png"),
        ([Upload("a.png", fakes.png())] * 1000, "there are 1000 photos of one person; send at most 16"),
        ([Upload("a.png", fakes.png(size=(400, 400)))], r"400 x 400 pixels, more than 0\.1 million"),
    ],
)
def test_photos_that_cannot_be_used_are_refused_and_nothing_stays(open_desk, photos, words):
    desk = open_desk(limits=Limits(pixels=100_000))
    with pytest.raises(PhotoError, match=words):
        desk.add_person("me", photos)
    assert not files(desk)
    assert not desk.people("me")


def test_a_deleted_person_is_gone_from_the_disk(desk):
    person = ada(desk, name="Adalgisa")
    desk.delete_person("me", person.id)
    assert not files(desk)
    for path in desk.store.folder.glob("desk.sqlite*"):
        assert b"Adalgisa" not in path.read_bytes()
    with pytest.raises(NotThere):
        desk.delete_person("me", person.id)


def test_a_name_is_short_and_can_be_shown(desk):
    for name in ("x" * 81, "a\x00b"):
        with pytest.raises(SettingsError, match="name"):
            ada(desk, name=name)


# ---- jobs


def test_a_job_is_drawn_and_every_picture_told_and_kept(desk, method):
    job = desk.submit("me", order(ada(desk).id, n=5))
    events = list(desk.events("me", job.id))
    pictures = [event for event in events if event.kind == "picture"]
    assert [one.picture.seed for one in pictures] == [0, 1, 2, 3, 4]
    assert [(one.done, one.total) for one in pictures] == [(number, 5) for number in range(1, 6)]
    assert (events[-1].kind, events[-1].state, events[-1].pictures) == ("ended", "done", 5)
    found = desk.job("me", job.id)
    assert found.state == "done"
    assert found.pictures == tuple(one.picture for one in pictures)
    assert method.batches == [4, 1]
    with Image.open(desk.picture_file("me", found.pictures[2].id)) as image:
        image.load()
        assert image.text["seed"] == "2"
        assert image.text["person"] == "Ada"
        assert image.text["model"] == "fake"
        assert image.text["DigitalSourceType"].endswith("trainedAlgorithmicMedia")


def test_who_listens_is_told_of_steps_with_previews(desk, method):
    person = ada(desk).id
    method.gate.clear()
    method.pace = 0.05
    job = desk.submit("me", order(person, n=2, steps=10))
    method.begun.wait(10)
    events = desk.events("me", job.id)
    found = []
    woken = threading.Event()
    following = desk.follow("me", job.id, woken.set)
    method.gate.set()
    found += list(events)
    steps = [event for event in found if event.kind == "step"]
    assert steps
    assert steps[-1].steps == 10
    assert len(steps[-1].previews) == 2
    assert all(one.startswith(b"\xff\xd8") for one in steps[-1].previews)
    assert woken.is_set()
    assert following.news()[-1].kind == "ended"
    assert following.ended
    following.close()


def test_nothing_is_told_behind_the_end_whoever_looks_while_a_job_ends(desk, method, monkeypatch):
    person = ada(desk).id
    method.pace = 0.05
    job = desk.submit("me", order(person, n=1, steps=20))
    following = desk.follow("me", job.id, lambda: None)
    method.begun.wait(10)
    while desk.workshop._live[job.id].step is None:
        time.sleep(0.01)
    real = desk.store.events

    def ends_meanwhile(*given):
        while desk.job("me", job.id).state != "done":
            time.sleep(0.01)
        return real(*given)

    monkeypatch.setattr(desk.store, "events", ends_meanwhile)
    assert following.news()[-1].kind == "ended"
    assert following.ended
    following.close()


def test_events_are_told_again_from_where_somebody_left(desk):
    job = desk.submit("me", order(ada(desk).id, n=3))
    first = [event for event in desk.events("me", job.id) if event.kind == "picture"]
    again = list(desk.events("me", job.id, after=first[1].number))
    assert [event.kind for event in again] == ["picture", "ended"]
    assert again[0] == first[2]
    assert list(desk.events("me", job.id, after=again[-1].number)) == []


def test_callers_take_turns_so_that_a_short_job_does_not_wait_for_a_long_one(desk, method):
    people = [ada(desk).id, ada(desk, "you").id]
    method.gate.clear()
    long = desk.submit("me", order(people[0], n=20))
    method.begun.wait(10)
    short = desk.submit("you", order(people[1], n=1, seed=99))
    assert desk.job("you", short.id).place == 1
    method.gate.set()
    assert end_of(desk, short, "you").state == "done"
    assert end_of(desk, long).state == "done"
    assert [seed for _, seed in method.drawn].index(99) == 4


def test_who_waits_is_told_the_place_whenever_it_changes(desk, method):
    person = ada(desk).id
    method.gate.clear()
    desk.submit("me", order(person))
    method.begun.wait(10)
    waiting = [desk.submit("me", order(person)) for _ in range(2)]
    assert [desk.job("me", one.id).place for one in waiting] == [1, 2]
    found = []
    woken = threading.Event()
    following = desk.follow("me", waiting[1].id, woken.set)
    found += following.news()
    desk.cancel("me", waiting[0].id)
    found += following.news()
    method.gate.set()
    while not following.ended:
        woken.wait(5)
        woken.clear()
        found += following.news()
    assert [event.place for event in found if event.kind == "queued"] == [2, 1]


def test_best_of_keeps_the_best(desk, method):
    job = desk.submit("me", order(ada(desk).id, n=2, best_of=3, seed=1))
    assert end_of(desk, job).pictures == 2
    pictures = desk.job("me", job.id).pictures
    assert [one.seed for one in pictures] == [1, 2]  # fakes turn away with each seed
    assert pictures[0].likeness > pictures[1].likeness
    assert len(method.drawn) == 6


def test_a_cancel_stops_within_a_step_and_two_are_as_good_as_one(desk, method):
    person = ada(desk).id
    method.gate.clear()
    job = desk.submit("me", order(person, n=4, steps=1000 // 10))
    method.begun.wait(10)
    desk.cancel("me", job.id)
    desk.cancel("me", job.id)
    method.gate.set()
    assert end_of(desk, job).state == "cancelled"
    assert not method.drawn
    assert desk.cancel("me", job.id).state == "cancelled"
    assert desk.counts() == {"waiting": 0, "drawing": 0}


def test_finished_pictures_of_a_cancelled_job_stay(desk, method):
    method.holds = 1
    job = desk.submit("me", order(ada(desk).id, n=8))
    for event in desk.events("me", job.id):
        if event.kind == "picture" and event.done == 4:
            desk.cancel("me", job.id)
            method.begun.wait(10)
            method.gate.set()
    found = desk.job("me", job.id)
    assert found.state == "cancelled"
    assert len(found.pictures) == 4
    assert all(desk.picture_file("me", one.id).is_file() for one in found.pictures)


def test_a_job_that_waits_is_cancelled_without_a_turn(desk, method):
    person = ada(desk).id
    method.gate.clear()
    first = desk.submit("me", order(person))
    method.begun.wait(10)
    second = desk.submit("me", order(person))
    assert desk.cancel("me", second.id).state == "cancelled"
    assert end_of(desk, second).state == "cancelled"
    method.gate.set()
    assert end_of(desk, first).state == "done"
    assert len(method.drawn) == 1


def test_deleting_a_job_deletes_its_pictures(desk):
    job = desk.submit("me", order(ada(desk).id, n=2, prompts=("a photo of a zookeeper woman img",)))
    end_of(desk, job)
    (first, second) = desk.job("me", job.id).pictures
    desk.delete_picture("me", first.id)
    assert [one.id for one in desk.job("me", job.id).pictures] == [second.id]
    assert [event.kind for event in desk.events("me", job.id)] == ["picture", "ended"]
    desk.delete_job("me", job.id)
    assert [name for name in files(desk) if name.startswith("pic")] == []
    for path in desk.store.folder.glob("desk.sqlite*"):
        assert b"zookeeper" not in path.read_bytes()


def test_a_running_job_can_be_deleted(desk, method):
    person = ada(desk).id
    method.gate.clear()
    job = desk.submit("me", order(person, steps=9))
    method.begun.wait(10)
    threading.Timer(0.1, method.gate.set).start()
    desk.delete_job("me", job.id)
    with pytest.raises(NotThere):
        desk.job("me", job.id)


def test_deleting_a_person_cancels_the_jobs_that_would_draw_them(desk, method):
    person = ada(desk)
    method.gate.clear()
    jobs = [desk.submit("me", order("Ada", steps=9)) for _ in range(2)]
    method.begun.wait(10)
    desk.delete_person("me", person.id)
    method.gate.set()
    for job in jobs:
        end = end_of(desk, job)
        assert (end.state, end.reason) == ("cancelled", "the person was deleted")
    assert not method.drawn


def test_pictures_to_draw_from_are_kept_and_found(desk, method):
    start = desk.add_picture("me", Upload("start.png", fakes.png(size=(3000, 1500))))
    assert (start.width, start.height) == (2048, 1024)
    assert start not in desk.pictures("me")
    job = desk.submit("me", order(ada(desk).id))
    end_of(desk, job)
    assert [one.job for one in desk.pictures("me")] == [job.id]
    with pytest.raises(NotThere, match="pic_no"):
        desk.submit("me", order("Ada", start="pic_no"))
    with pytest.raises(PhotoError, match=r"x\.png is not a picture"):
        desk.add_picture("me", Upload("x.png", b"GIF89a"))


def test_a_pose_reaches_a_method_that_takes_one(desk, monkeypatch):
    ada(desk)
    with pytest.raises(SettingsError, match="pose"):
        desk.submit("me", order("Ada", pose=PlainPose("photo")))
    monkeypatch.setattr(fakes.SteppingMethod, "takes", frozenset({"pose"}))
    picture = desk.add_picture("me", Upload("face.png", fakes.png(who=7)))
    (group,) = desk.plan("me", order("Ada", pose=PlainPose(picture.id, 0.5))).groups
    pose = group.requests[0].extras.pose
    assert (pose.source.getpixel((0, 0)), pose.scale) == ((1, 0, 7), 0.5)
    job = desk.submit("me", order("Ada", pose=PlainPose("draft")))
    assert end_of(desk, job).state == "done"
    with Image.open(desk.picture_file("me", desk.job("me", job.id).pictures[0].id)) as image:
        assert image.text["pose"] == "draft"
    with pytest.raises(NotThere, match="elsewhere"):
        desk.submit("me", order("Ada", pose=PlainPose("elsewhere")))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (order("Ada", n=65), "the job draws 65 pictures; ask for at most 64"),
        (order("Ada", steps=101), "there are 101 steps; ask for at most 100"),
        (order("Ada", prompts=("a woman img" + " x" * 3000,)), "6011 characters in a prompt"),
        (order(*["Ada"] * 17), "there are 17 people"),
        (order("Ada", loras=(PlainLora("/etc/passwd"),)), "this server has no model '/etc/passwd'"),
        (order("Ada", controls=(PlainStructure("http://x/y", "p"),)), "no model 'http://x/y'"),
        (order("Ada", loras=(PlainLora("a"),) * 5), "there are 5 LoRA"),
        (order("Ada", mask="pic_1"), "a mask .* but no start picture"),
        (order("Ada", layout=((0.0, 1.0),)), "2 numbers"),
        (order("Ada", style="cubizm"), "no style 'cubizm'"),
        (order("Ada", steps=0), "steps is 0"),
        (order("Ada", prompts=("",)), "prompt is empty"),
        (order("Ada", prompts=()), "there is no prompt"),
        (order(), "there is nobody to draw"),
    ],
)
def test_an_order_that_cannot_be_drawn_is_refused_at_once(desk, asked, words):
    from photomaker.errors import PhotoMakerError

    ada(desk)
    with pytest.raises(PhotoMakerError, match=words):
        desk.submit("me", asked)
    assert desk.jobs("me") == []


def test_the_largest_picture_is_bounded():
    wide = Order((Someone("ada"),), (PROMPT,), sampling=Sampling(width=4096, height=1032))
    with pytest.raises(
        SettingsError, match="the size is 4096 x 1032; ask for at most as many pixels as 2048 x 2048"
    ):
        Limits().check(wide)
    Limits().check(replace(wide, sampling=Sampling(width=4096, height=1024)))


def test_500_jobs_at_once_fill_the_line_and_no_more(open_desk, method):
    desk = open_desk(limits=Limits(waiting=50, waiting_each=30)).start()
    people = {owner: ada(desk, owner).id for owner in ("a", "b", "c")}
    method.gate.clear()
    taken, refused, lock = [], [], threading.Lock()

    def ask(number):
        owner = "ab"[number % 2]
        try:
            job = desk.submit(owner, order(people[owner]))
            with lock:
                taken.append((owner, job))
        except QueueFull as error:
            with lock:
                refused.append(error.retry_after)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 50 <= len(taken) <= 54  # and what was being drawn
    assert len(taken) + len(refused) == 500
    assert all(1 <= seconds <= 600 for seconds in refused)
    taken.append(("c", desk.submit("c", order(people["c"]))))  # who has none waiting is not shut out
    method.gate.set()
    assert {end_of(desk, job, owner).state for owner, job in taken} == {"done"}
    assert len(method.drawn) == len(taken)


# ---- several jobs in one pass


def small_jobs(desk, method, count, **more):
    """Jobs of one picture that wait behind another, which is being drawn."""
    ada(desk)
    method.gate.clear()
    first = desk.submit("me", order("Ada", steps=3))
    method.begun.wait(10)
    method.begun.clear()
    return first, [desk.submit("me", order("Ada", seed=number, **more)) for number in range(1, count + 1)]


def test_jobs_that_differ_in_prompt_and_seed_are_drawn_in_one_pass(desk, method):
    _, jobs = small_jobs(desk, method, 6)
    method.gate.set()
    for number, job in enumerate(jobs, 1):
        assert end_of(desk, job).state == "done"
        assert [one.seed for one in desk.job("me", job.id).pictures] == [number]
    assert method.batches == [1, 4, 2]


def test_a_pass_is_filled_by_part_of_a_longer_job(desk, method):
    small_jobs(desk, method, 0)
    short = desk.submit("me", order("Ada", seed=1))
    long = desk.submit("me", order("Ada", seed=10, n=6))
    method.gate.set()
    assert end_of(desk, long).state == end_of(desk, short).state == "done"
    assert [one.seed for one in desk.job("me", long.id).pictures] == list(range(10, 16))
    assert method.batches == [1, 4, 3]


def test_jobs_that_differ_in_more_are_not(desk, method):
    another = ada(desk, "you").id
    _, jobs = small_jobs(desk, method, 2, steps=2)
    jobs.append(desk.submit("me", order("Ada", steps=4)))
    jobs.append(desk.submit("me", order("Ada", best_of=2)))
    other = desk.submit("you", order(another, seed=9))
    method.gate.set()
    assert {end_of(desk, job).state for job in jobs} == {"done"}
    assert end_of(desk, other, "you").state == "done"
    assert sorted(method.batches) == [1, 1, 1, 2, 2]


def test_a_cancel_of_one_leaves_the_others_to_be_drawn(desk, method):
    method.pace = 0.02
    _, jobs = small_jobs(desk, method, 3, steps=30)
    method.gate.set()
    wait_until(lambda: desk.job("me", jobs[2].id).state == "running")
    desk.cancel("me", jobs[1].id)
    assert [end_of(desk, job).state for job in jobs] == ["done", "cancelled", "done"]
    assert [len(desk.job("me", job.id).pictures) for job in jobs] == [1, 0, 1]


def test_what_fails_together_is_drawn_one_by_one(desk, method, monkeypatch):
    _, jobs = small_jobs(desk, method, 3)
    real = fakes.SteppingMethod.generate

    def generate(self, identity, requests, *, watch=None):
        if any(request.sampling.seed == 2 for request in requests):
            raise RuntimeError("seed 2")
        return real(self, identity, requests, watch=watch)

    monkeypatch.setattr(fakes.SteppingMethod, "generate", generate)
    method.gate.set()
    assert [end_of(desk, job).state for job in jobs] == ["done", "failed", "done"]


def test_each_listener_sees_its_own_pictures(desk, method):
    method.pace = 0.02
    _, jobs = small_jobs(desk, method, 3, steps=30)
    method.gate.set()
    steps = [event for event in desk.events("me", jobs[1].id) if event.kind == "step"]
    assert steps
    assert all(len(one.previews) == 1 for one in steps)


def test_a_stop_in_the_middle_puts_all_of_them_back(open_desk, method):
    method.pace = 0.02
    desk = open_desk().start()
    _, jobs = small_jobs(desk, method, 3, steps=30)
    method.gate.set()
    wait_until(lambda: desk.job("me", jobs[2].id).state == "running")
    desk.close()
    method.pace = 0
    again = open_desk()
    assert [again.job("me", job.id).state for job in jobs] == ["queued"] * 3
    again.start()
    assert {end_of(again, job).state for job in jobs} == {"done"}


# ---- whose it is


def test_what_is_anothers_is_told_like_what_is_not_there(desk):
    person = ada(desk)
    job = desk.submit("me", order(person.id))
    end_of(desk, job)
    (picture,) = desk.job("me", job.id).pictures
    calls = [
        ("person", desk.person),
        ("person", desk.identity_file),
        ("person", desk.portrait),
        ("person", lambda owner, id_: desk.rename_person(owner, id_, "mine")),
        ("person", desk.delete_person),
        ("person", lambda owner, id_: desk.mix(owner, id_, id_, 0.5)),
        ("person", lambda owner, id_: desk.submit(owner, order(id_))),
        ("picture", desk.picture_file),
        ("picture", desk.delete_picture),
        ("picture", desk.ticket),
        ("job", desk.job),
        ("job", desk.cancel),
        ("job", desk.delete_job),
        ("job", desk.events),
    ]
    for what, call in calls:
        own = {"person": person.id, "picture": picture.id, "job": job.id}[what]
        messages = []
        for id_ in (own, own[:4] + "0" * 32, "../../../etc/passwd", ""):
            with pytest.raises(NotThere) as error:
                call("you", id_)
            messages.append(str(error.value).replace(repr(id_), "ID"))
        assert set(messages) == {f"there is no {what} ID; check its id"}
    assert desk.people("you") == desk.jobs("you") == desk.pictures("you") == []
    assert desk.person("me", person.id).name == "Ada"


def test_a_ticket_shows_one_picture_for_a_while(desk):
    job = desk.submit("me", order(ada(desk).id, n=2))
    end_of(desk, job)
    first, second = desk.job("me", job.id).pictures
    ticket = desk.ticket("me", first.id)
    assert desk.picture_by_ticket(first.id, ticket) == desk.picture_file("me", first.id)
    until, _, seal = ticket.partition(".")
    for id_, bad in (
        (second.id, ticket),
        (first.id, f"{int(until) + 1}.{seal}"),
        (first.id, desk.ticket("me", first.id, -5)),
        (first.id, "x"),
        (first.id, "²."),
        (first.id, until + ".é"),
    ):
        with pytest.raises(NotThere):
            desk.picture_by_ticket(id_, bad)


# ---- what goes wrong


def test_a_failure_is_told_and_the_next_job_is_drawn(desk, method, caplog):
    person = ada(desk).id
    for error, words in (
        (IdentityError("it does not fit; make it again"), "it does not fit; make it again"),
        (RuntimeError("tensor 7"), "internal error; see the server's log"),
        (MemoryError(), "there is not enough memory for this job; ask for fewer or smaller pictures"),
    ):
        method.fails = error
        end = end_of(desk, desk.submit("me", order(person)))
        assert (end.state, end.reason) == ("failed", words)
    method.fails = None
    assert end_of(desk, desk.submit("me", order(person))).state == "done"
    assert "tensor 7" in caplog.text


def test_a_full_disk_fails_the_job_and_loses_nothing(desk, monkeypatch):
    person = ada(desk).id
    before = desk.submit("me", order(person, n=4))
    end_of(desk, before)
    real = images.atomic

    def full(path, overwrite=True):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(images, "atomic", full)
    job = desk.submit("me", order(person, n=2))
    end = end_of(desk, job)
    assert end.state == "failed"
    assert "No space left on device" in end.reason
    with pytest.raises(OutputError, match="No space left"):
        desk.add_picture("me", Upload("a.png", fakes.png()))
    monkeypatch.setattr(images, "atomic", real)
    assert len(desk.job("me", before.id).pictures) == 4
    assert not [name for name in files(desk) if name.endswith(".part")]
    assert end_of(desk, desk.submit("me", order(person, n=2))).state == "done"


def test_what_was_written_before_the_disk_was_full_does_not_stay(desk, monkeypatch):
    person = ada(desk).id
    before, real, calls = files(desk), images.atomic, []

    def full(path, overwrite=True):
        calls.append(path)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, overwrite)

    monkeypatch.setattr(images, "atomic", full)
    assert end_of(desk, desk.submit("me", order(person, n=4))).state == "failed"
    assert len(calls) == 3
    assert files(desk) == before


def test_a_database_on_a_full_disk_ends_the_job_in_memory_and_it_is_drawn_after_a_restart(
    open_desk, monkeypatch, method
):
    desk = open_desk().start()
    job = desk.submit("me", order(ada(desk).id))
    end_of(desk, job)
    method.gate.clear()
    job = desk.submit("me", order("Ada", seed=50))
    method.begun.wait(10)

    def full(*_):
        raise OutputError("cannot write to desk: database or disk is full; free some space there")

    for name in ("add_drawn", "end"):
        monkeypatch.setattr(desk.store, name, full)
    method.gate.set()
    end = end_of(desk, job)
    assert end.state == "failed"
    assert "disk is full" in end.reason
    assert desk.job("me", job.id).state == "failed"
    desk.close()
    again = open_desk().start()
    assert end_of(again, job).state == "done"


def test_sqlite_that_is_full_is_told_as_such(desk):
    desk.store._base.execute("PRAGMA max_page_count = 1")
    with pytest.raises(OutputError, match="full"):
        for _ in range(50):
            ada(desk)
    desk.store._base.execute("PRAGMA max_page_count = 1000000")
    assert ada(desk)


# ---- stopped and started again


def test_a_job_goes_on_after_a_stop_and_draws_nothing_twice(open_desk, method):
    method.holds = 1
    desk = open_desk().start()
    job = desk.submit("me", order(ada(desk).id, n=8))
    waiting = desk.submit("me", order("Ada", seed=70))
    wait_until(lambda: len(desk.job("me", job.id).pictures) == 4)
    desk.stop()
    method.gate.set()
    desk.close()
    assert desk.open_jobs == 2
    assert [seed for _, seed in method.drawn] == [0, 1, 2, 3]
    again = open_desk()
    found = again.job("me", job.id)
    assert (found.state, found.place, len(found.pictures)) == ("queued", 1, 4)
    method.holds = None
    again.start()
    assert end_of(again, job).state == end_of(again, waiting).state == "done"
    assert [one.seed for one in again.job("me", job.id).pictures] == list(range(8))
    assert sorted(seed for _, seed in method.drawn) == [*range(8), 70]


def test_best_of_is_drawn_again_as_a_whole_or_not_at_all(open_desk, method):
    method.holds = 1
    desk = open_desk().start()
    prompts = (PROMPT, "a sketch of a woman img")
    job = desk.submit("me", order(ada(desk).id, n=1, best_of=3, prompts=prompts))
    wait_until(lambda: len(desk.job("me", job.id).pictures) == 1)
    desk.stop()
    method.gate.set()
    desk.close()
    method.holds = None
    again = open_desk().start()
    assert end_of(again, job).state == "done"
    assert [one.prompt for one in again.job("me", job.id).pictures] == list(prompts)
    assert [prompt for prompt, _ in method.drawn].count(PROMPT) == 3


def test_a_job_that_ends_the_process_again_and_again_is_told_as_broken_off(open_desk):
    desk = open_desk()
    job = desk.submit("me", order(ada(desk).id))
    for _ in range(TRIES):
        desk.store.begin(job.id)  # what a process does before it is killed
    desk.close()
    again = open_desk().start()
    end = end_of(again, job)
    assert end.state == "failed"
    assert end.reason.startswith("stopped: the server died 3 times")


def test_what_a_kill_left_half_written_is_removed(open_desk):
    desk = open_desk()
    person = ada(desk)
    desk.close()
    left = [desk.store.folder / "pictures" / name for name in ("pic_1.png", ".pic_2.png.ab.part")]
    left.append(desk.store.folder / "identities" / f"{person.id}.safetensorsxyz.part")
    for path in left:
        path.write_bytes(b"half")
    again = open_desk()
    assert not any(path.exists() for path in left)
    assert again.identity("me", person.id)


def test_a_row_is_written_once_its_file_and_name_are_on_the_disk(desk, monkeypatch):
    folder = desk.store.folder
    named, promised = {}, []
    sync = os.fsync

    def synced(opened):
        """Remember what is on the disk: bytes by inode, and the names of a folder that is synced."""
        sync(opened)
        told = os.fstat(opened)
        for path in [one for part in ("pictures", "identities") for one in (folder / part).iterdir()]:
            same = path.stat().st_ino == told.st_ino
            named[path.stat().st_ino] = told.st_size if same else named.get(path.stat().st_ino)
            if path.parent.stat().st_ino == told.st_ino:
                named[path] = named[path.stat().st_ino]

    def watched(name, paths_of):
        old = getattr(desk.store, name)

        def told(*values):
            for path in paths_of(*values):
                assert named.get(path) == path.stat().st_size, f"{path} would not outlive a power cut"
                promised.append(path.suffix)
            return old(*values)

        monkeypatch.setattr(desk.store, name, told)

    monkeypatch.setattr(os, "fsync", synced)
    watched("add_person", lambda _, who, __: [desk.store.path(IDENTITY, who.id)])
    watched("add_drawn", lambda _, rows, __: [desk.store.path(PICTURE, one.id) for one, _ in rows])
    job = desk.submit("me", order(ada(desk).id, n=2))
    assert end_of(desk, job).state == "done"
    assert promised == [".safetensors", ".png", ".png"]
    assert desk.store._base.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL: each commit too


def test_a_folder_is_held_by_one_process(open_desk):
    desk = open_desk()
    with pytest.raises(SettingsError, match="in use by another server"):
        open_desk()
    desk.close()
    open_desk()


def test_a_folder_that_holds_something_else_is_told(made, tmp_path):
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk" / "desk.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(SettingsError, match="cannot be read"):
        Desk(made[0], tmp_path / "desk")
    with pytest.raises(OutputError, match="is not a folder"):
        Desk(made[0], tmp_path / "desk" / "desk.sqlite")


def test_the_folder_is_the_users_alone(desk):
    assert desk.store.folder.stat().st_mode & 0o077 == 0


def test_what_has_outlived_its_time_is_deleted(open_desk):
    desk = open_desk(ttl=0.5).start()
    job = desk.submit("me", order(ada(desk).id))
    desk.add_picture("me", Upload("a.png", fakes.png()))
    end_of(desk, job)
    wait_until(lambda: not files(desk))
    assert desk.people("me") == desk.jobs("me") == []


def test_what_a_job_that_waits_needs_is_not_deleted(open_desk):
    desk = open_desk()
    person = ada(desk)
    job = desk.submit("me", order(person.id))
    desk.expire(time.time() + 60)
    assert desk.person("me", person.id)
    desk.start()
    assert end_of(desk, job).state == "done"


def test_who_listens_is_let_go_when_the_desk_stops(desk, method):
    person = ada(desk).id
    method.gate.clear()
    job = desk.submit("me", order(person))
    threading.Timer(0.1, lambda: (desk.stop(), method.gate.set())).start()
    assert not [event for event in desk.events("me", job.id) if event.kind == "ended"]


def test_a_drawer_that_is_lost_costs_no_picture(open_desk, made):
    engine, method = made
    lost = []

    class Going:
        def draw(self, *given, **more):
            lost.append(given)
            raise DrawerLost("killed")

    desk = open_desk(drawers=[engine, Going()]).start()
    jobs = [desk.submit("me", order(ada(desk).id, n=40)) for _ in range(2)]
    assert {end_of(desk, job).state for job in jobs} == {"done"}
    assert lost
    assert sorted(seed for _, seed in method.drawn) == sorted([*range(40)] * 2)


def test_a_job_that_every_drawer_is_lost_with_is_told_as_failed(open_desk, monkeypatch):
    class Going:
        def draw(self, *given, **more):
            raise DrawerLost("killed")

    desk = open_desk(drawers=[Going()])
    monkeypatch.setattr(desk.workshop.stopping, "wait", lambda _: None)
    end = end_of(desk.start(), desk.submit("me", order(ada(desk).id)))
    assert (end.state, end.reason) == ("failed", "the process drawing it died 3 times; ask for less")


def test_several_drawers_share_the_work(open_desk, made):
    engine, method = made
    seen = []

    class Drawer:
        def draw(self, identity, requests, *, cancel=None, on_event=None, redraw="off"):
            seen.append(threading.current_thread().name)
            time.sleep(0.02)
            return engine.draw(identity, requests, cancel=cancel, on_event=on_event, redraw=redraw)

    desk = open_desk(drawers=[Drawer(), Drawer()]).start()
    job = desk.submit("me", order(ada(desk).id, n=40))
    events = list(desk.events("me", job.id))
    assert {name.rsplit("-", 1)[0] for name in seen} == {"photomaker-0", "photomaker-1"}
    assert sorted(seed for _, seed in method.drawn) == list(range(40))
    assert [event.done for event in events if event.kind == "picture"] == list(range(1, 41))
    assert [one.seed for one in desk.job("me", job.id).pictures] == list(range(40))


def test_a_tuned_method_is_refused(made, tmp_path, monkeypatch):
    from photomaker.methods.base import Need

    monkeypatch.setattr(fakes.SteppingMethod, "needs", frozenset({Need.TUNING}))
    with pytest.raises(SettingsError, match="tuned for each person, which takes minutes"):
        Desk(made[0], tmp_path / "desk")
    assert not (tmp_path / "desk").exists()


def test_measures_are_told(made, tmp_path):
    told = []
    with Desk(made[0], tmp_path / "desk", measure=lambda name, value: told.append((name, value))) as desk:
        end_of(desk, desk.submit("me", order(ada(desk).id, n=2)))
    names = [name for name, _ in told]
    assert {"identity", "waiting", "drawing", "saving", "likeness"} <= set(names)
    assert names.count("picture") == 2
    assert all(value >= 0 for name, value in told if name != "likeness")


def test_the_store_is_one_that_sqlite_calls_sound(desk):
    end_of(desk, desk.submit("me", order(ada(desk).id)))
    with sqlite3.connect(desk.store.folder / "desk.sqlite") as base:
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    base.close()


@pytest.mark.bundled
@pytest.mark.skipif(not weights.SMALL.is_dir(), reason="the bundled weights are not trained yet")
def test_what_is_drawn_in_one_pass_is_what_is_drawn_alone(tmp_path):
    from photomaker.studio.engine import Engine

    engine = Engine.open()
    photos = sorted((Path(__file__).parents[2] / "examples" / "ada").glob("*.png"))
    prompts = (PROMPT, "a sketch of a woman img")
    desk = Desk(engine, tmp_path / "desk")
    ada = desk.add_person("me", [Upload(path.name, path) for path in photos])
    jobs = [
        desk.submit("me", order(ada.id, seed=3 + at, prompts=(prompt,))) for at, prompt in enumerate(prompts)
    ]
    passes = []
    hook = engine.method.pipeline.unet.register_forward_pre_hook(lambda _module, _args: passes.append(1))
    with desk:
        for at, (job, prompt) in enumerate(zip(jobs, prompts, strict=True)):
            assert end_of(desk, job).state == "done"
            hook.remove()
            assert len(passes) == 2  # one a step
            (picture,) = desk.job("me", job.id).pictures
            (alone,) = engine.draw(
                desk.identity("me", ada.id), [Request(prompt, Sampling(steps=2, seed=3 + at))]
            )
            with Image.open(desk.picture_file("me", picture.id)) as image:
                difference = np.abs(np.asarray(image, int) - np.asarray(alone.image, int))
            assert difference.max() <= 1  # rounding of a pixel
            assert picture.likeness == pytest.approx(alone.likeness, abs=0.01)
