"""Seeded faults: what goes wrong in a simulated world, and how often.

Every store and waker call of every caller waits its turn here, so that instances race; then it may fail, its answer may
be lost, or its caller may die, before or after the effect. A caller may also stand still for longer than its lease and
go on as a zombie. Deliveries come twice, late, early, in any order, or are lost as a platform may lose them: a held
message comes back later, a bell that did not ring is made good by the scheduler's next look.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from everstep.errors import OutcomeUnknown, StoreUnavailable, WakerError
from everstep.ports import Wake
from everstep.promise import State
from everstep.rows import from_row

from .platform import Message, Queue
from .world import Caller, Crashed, delivery

if TYPE_CHECKING:
    from random import Random

    from .world import World


@dataclass(frozen=True, slots=True)
class Faults:
    """How often things go wrong, as probabilities.

    Attributes:
        crash: of a caller dying at a store or waker call, half of them after the effect.
        stall: of a caller standing still for longer than its lease, and going on afterwards.
        unavailable: of a store or waker that cannot be reached.
        unknown: of a call whose answer is lost, half of them carried out.
        duplicate, late, early, lost: of a delivery; some of the early ones are direct calls, which nobody repeats.
        forget: of an instance forgetting what it keeps warm, between two things that happen.
        skew: by how many milliseconds clocks of instances differ; now and then one steps.
        latency: how many milliseconds a call may take.
        limit: of faults in one history, so that it comes to an end.
    """

    crash: float = 0.01
    stall: float = 0.005
    unavailable: float = 0.01
    unknown: float = 0.01
    duplicate: float = 0.08
    late: float = 0.08
    early: float = 0.02
    lost: float = 0.03
    forget: float = 0.01
    skew: int = 5
    latency: int = 30
    limit: int = 40

    def scaled(self, factor: float) -> Faults:
        """The same, each probability times `factor`."""
        changed = {one.name: getattr(self, one.name) * factor for one in fields(self) if one.type == "float"}
        return replace(self, **changed)

    def install(self, world: World) -> None:
        """Let `world` go wrong from now on."""
        world.disturb(Chaos(self, world))


class Chaos:
    """The director of a world with faults."""

    def __init__(self, faults: Faults, world: World) -> None:
        self.faults = faults
        self.world = world
        self.random: Random = world.random
        self.left = faults.limit

    # What a call goes through.

    async def before(self, caller: Caller, point: str, subject: str) -> None:
        await self._wait(caller, point)
        chance = self.faults
        began = self.world.fresh.get(delivery.get())
        if point == "store.commit" and began is not None and self.world.clock.now() > began + self.world.lease:
            # A request does not stay on its way for so long that the message behind it has been given to others.
            raise StoreUnavailable("timed out")
        if self._happens(chance.crash / 2):
            caller.crash()
            raise Crashed(caller.name)
        if self._happens(chance.unavailable, caller, "unavailable", point):
            raise self._refusal(point)
        if point == "store.commit" and self._happens(chance.unknown / 2, caller, "unknown", point):
            raise OutcomeUnknown("the answer was lost; nothing was written")

    async def after(self, caller: Caller, point: str, subject: str) -> None:
        chance = self.faults
        if self._happens(chance.crash / 2):
            caller.crash()
            raise Crashed(caller.name)
        if self._happens(chance.unknown / 2, caller, "lost answer", point):
            if point == "store.commit":
                raise OutcomeUnknown("the answer was lost; it was written")
            raise self._refusal(point)
        if self.random.random() < 0.2:
            await self._wait(caller, point)

    async def _wait(self, caller: Caller, point: str) -> None:
        world, random = self.world, self.random
        until = world.clock.now()
        if self._happens(self.faults.stall, caller, "stall", point):
            until += world.lease + random.randrange(world.lease)
        elif random.random() < 0.4:
            until += random.randrange(self.faults.latency + 1)
        await world.hold(caller, until)

    def _refusal(self, point: str) -> Exception:
        return StoreUnavailable(point) if point.startswith("store.") else WakerError(point)

    def _happens(self, chance: float, caller: Caller | None = None, kind: str = "", detail: str = "") -> bool:
        if self.left <= 0 or self.random.random() >= chance:
            return False
        self.left -= 1
        if caller is not None:
            self.world.tell(caller, kind, detail)
        return True

    # What a delivery goes through.

    def born(self, caller: Caller) -> None:
        """An instance begins, its clock as it may be."""
        caller.clock.skew = self.random.randint(-self.faults.skew, self.faults.skew)

    def delivers(self, message: Message) -> bool:
        """Whether a delivery takes place as it should."""
        world, faults = self.world, self.faults
        if self._happens(faults.duplicate):
            world.platform.repeat(message)
        if self._happens(faults.late):
            delay = self.random.choice((50, 5_000, world.platform.visibility, 600_000))
            world.platform.postpone(message, world.clock.now() + delay)
            return False
        if self._happens(faults.lost):
            receipt = world.platform.take(message)
            world.platform.died(receipt)
            return False
        return True

    def meanwhile(self) -> None:
        """Between two things that happen."""
        world, random = self.world, self.random
        if self._happens(self.faults.forget) and world.instances:
            random.choice(world.instances).driver.cold()
        if random.random() < 0.01 and world.instances:
            instance = random.choice(world.instances)
            instance.clock.skew = random.randint(-self.faults.skew, self.faults.skew)
        if self._happens(self.faults.early):
            self._early()

    def _early(self) -> None:
        world = self.world
        platform = world.platform
        if self.random.random() < 0.3:
            tasks = [from_row(row) for row in world.store._rows.values() if row.task and row.state == "pending"]
            if tasks:
                record = self.random.choice(tasks)
                world.invoke(Wake(record.id, record.task.version if record.task is not None else 0))
            return
        if isinstance(platform, Queue):
            soon = world.clock.now() + 30_000  # a platform's clock is off by so much at most
            waiting = [one for one in platform.messages.values() if one.held_until is None and one.at <= soon]
            if waiting:
                world.deliver(self.random.choice(waiting))
            return
        pending = [row.id for row in world.store._rows.values() if row.task and row.state == State.PENDING.value]
        if pending:
            platform.send(Wake(self.random.choice(pending)))


__all__ = ["Chaos", "Faults"]
