"""STATFS, KEEPALIVE, GET_ROUTING, and what every request has to look like."""

import errno

import pytest
from meta_world import CLIENT, PRINCIPAL, routing

from fs3 import limits
from fs3._proto import meta_pb2 as pb
from fs3.auth.identity import Principal, Role
from fs3.errors import BadRequest, Denied, Status
from fs3.meta.call import Call
from fs3.meta.identity import HostRule, IdentityPolicy
from fs3.meta.inspect import Inspector
from fs3.meta.ops import VERBS


def test_statfs_divides_by_the_copies(world):
    reply = world.call(pb.STATFS)
    assert (reply.capacity_bytes, reply.free_bytes) == (1000, 500)
    assert (reply.block_size, reply.name_max) == (4096, 255)
    world.create(b"f")
    assert world.call(pb.STATFS).inodes_free < reply.inodes


def test_keepalive(world):
    reply = world.call(pb.KEEPALIVE, open_inodes=[5, 6])
    assert reply.period_ms == 3000
    assert world.store.env.clients.is_read(5)
    world.call(pb.KEEPALIVE, open_inodes=[6], client=b"client-bbbbbbbbb")
    world.call(pb.KEEPALIVE, open_inodes=[])
    assert not world.store.env.clients.is_read(5)
    assert world.store.env.clients.is_read(6)
    too_many = range(limits.KEEPALIVE_INODES_MAX + 1)
    world.fails(errno.EINVAL, pb.KEEPALIVE, open_inodes=too_many)
    world.fails(errno.EINVAL, pb.KEEPALIVE, client=b"")


def test_routing_only_when_newer(world):
    def routing_of(known):
        body = pb.GetRoutingRequest(known_version=known).SerializeToString()
        return world.answer(world.send(pb.GET_ROUTING, body), pb.GET_ROUTING)

    assert routing_of(0).routing == routing()
    assert not routing_of(1).HasField("routing")
    world.store.env.layouts.set_routing(routing(version=7))
    assert routing_of(1).routing.version == 7


def status_of(world, method, body, principal=PRINCIPAL):
    (answer,) = world.store.run([Call("t", method, body, principal)])
    return answer.status, answer.detail


def test_bad_requests_name_the_field(world):
    assert status_of(world, 0x0999, b"")[0] == Status.UNKNOWN_METHOD
    assert status_of(world, pb.MKDIR, b"\xff\xff\xff")[0] == Status.BAD_REQUEST
    for client, request_id, field in (
        (b"short", 1, "client_id"),
        (b"", 1, "request_id"),
        (CLIENT, 0, "request_id"),
    ):
        body = world.request(pb.MKDIR, parent=1, name=b"d", client=client, request_id=request_id)
        status, detail = status_of(world, pb.MKDIR, body)
        assert status == Status.BAD_REQUEST
        assert field in detail
    body = world.request(pb.LOOKUP, parent=1, name=b"x", client=b"", request_id=0)
    assert status_of(world, pb.LOOKUP, body)[0] == errno.ENOENT


def test_one_bad_request_does_not_disturb_the_batch(world):
    bodies = [
        world.request(pb.MKDIR, parent=1, name=b"a"),
        b"\xff\xff",
        world.request(pb.MKDIR, parent=99, name=b"b"),
        world.request(pb.MKDIR, parent=1, name=b"c"),
    ]
    answers = world.store.run([Call(i, pb.MKDIR, body, PRINCIPAL) for i, body in enumerate(bodies)])
    assert {a.token: a.status for a in answers} == {
        0: 0,
        1: Status.BAD_REQUEST,
        2: errno.ENOENT,
        3: 0,
    }
    assert sorted(world.names()) == [b"a", b"c"]


def test_every_method_of_the_contract_has_a_verb():
    assert set(VERBS) == set(pb.Method.values()) - {pb.METHOD_NONE} - Inspector.METHODS


@pytest.mark.parametrize(
    ("uid", "claimed", "believed"),
    [(0, 7, 7), (500, 7, 7), (7, 0, 7), (None, 9, 9)],
)
def test_who_is_believed(uid, claimed, believed):
    policy = IdentityPolicy(service_uid=500, groups_of=lambda uid: (uid, frozenset({90})))
    principal = Principal(Role.CLIENT, uid is not None, uid, 0, CLIENT, "10.0.0.1:5")
    caller = policy.caller(principal, pb.Caller(uid=claimed, gid=1, groups=range(100)))
    assert caller.uid == believed
    assert len(caller.groups) == (1 if uid == 7 else limits.GROUPS_MAX)


def host(address):
    return Principal(Role.CLIENT, False, None, 0, CLIENT, address)


NOBODY = (65534, 65534, frozenset())
RULES = ["10.0.0.7 admin", "10.0.0.0/8 uids=1000-1999", "fd00::/8"]


@pytest.mark.parametrize(
    ("address", "claim", "believed"),
    [
        ("10.0.0.7:5", (0, 0, [0, 5]), (0, 0, {0, 5})),
        ("10.0.0.7:5", (5, 0, []), (5, 0, set())),
        ("10.0.0.8:5", (0, 0, [5]), NOBODY),
        ("10.0.0.8:5", (1000, 0, [0, 5]), (1000, 65534, {5})),
        ("10.0.0.8:5", (1999, 7, []), (1999, 7, set())),
        ("10.0.0.8:5", (2000, 7, []), NOBODY),
        ("10.0.0.8:5", (999, 7, []), NOBODY),
        ("[::ffff:10.0.0.8]:5", (0, 0, []), NOBODY),
        ("[fd00::1]:5", (0, 0, []), NOBODY),
        ("[fd00::1]:5", (5, 6, [7]), (5, 6, {7})),
    ],
)
def test_a_host_speaks_for_whom_its_rule_says(address, claim, believed):
    policy = IdentityPolicy(service_uid=0, hosts=[HostRule.parse(text) for text in RULES])
    uid, gid, groups = claim
    assert policy.caller(host(address), pb.Caller(uid=uid, gid=gid, groups=groups)) == believed


@pytest.mark.parametrize("address", ["11.0.0.1:5", "[fe00::1]:5", "unix", "garbage"])
def test_a_host_of_no_rule_is_refused(address):
    policy = IdentityPolicy(service_uid=0, hosts=[HostRule.parse(text) for text in RULES])
    with pytest.raises(Denied, match="no network"):
        policy.caller(host(address), pb.Caller(uid=5))


def test_without_rules_every_host_is_an_admin():
    for address in ("10.0.0.1:5", "[::1]:5", "ipv4:10.0.0.1:5", "ipv6:%5B::1%5D:5", "unix:/x"):
        assert IdentityPolicy(service_uid=9).caller(host(address), pb.Caller()).is_root


@pytest.mark.parametrize("text", ["10.0.0.1/8", "x", "10.0.0.1 root", "10.0.0.1 uids=5"])
def test_a_bad_rule_is_named(text):
    with pytest.raises(BadRequest, match="NETWORK"):
        HostRule.parse(text)
