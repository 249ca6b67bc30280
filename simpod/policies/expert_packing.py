"""What balancers of experts have in common: how many copies of each, and which die gets which.

All arrays have a leading axis of layers, which are worked on at the same time.
"""

import numpy as np

from simpod.policies.roles import ExpertSlotsView, Floats, Ints

TIE = 1e-9
"""Of the heaviest item, for each place more of a pack: loads that differ by less are equal."""


def slots_of_die(slots: ExpertSlotsView) -> Ints:
    """[num_dies]: slots for routed experts."""
    return np.bincount(slots.die_of_slot, minlength=slots.num_dies)


def copies_by_hottest(load: Floats, num_slots: int) -> Ints:
    """[layers, num_slots] experts: each once, then a copy of whoever has most tokens a copy.

    No other choice of copies has a smaller largest load of one copy, because taking a copy from
    any expert would lift it to a load that was the largest when the copy was given.
    """
    layers, experts = load.shape
    held = np.tile(np.arange(experts), (layers, 1))
    copies = np.ones((layers, experts))
    row = np.arange(layers)
    found = [held]
    for _ in range(num_slots - experts):
        hottest = (load / copies).argmax(axis=1)
        copies[row, hottest] += 1.0
        found.append(hottest[:, np.newaxis])
    return np.concatenate(found, axis=1)


def copies_by_slices(slices: Floats, num_slots: int, most: int) -> Ints:
    """[layers, num_slots] experts for the loads [slices, layers, experts] of slices of time.

    The cost of a layer is the sum over slices of the most tokens of one copy; each next copy is the
    one that lowers the cost most (xDeepServe 4.5), or of the expert with most tokens a copy where
    none does. No expert gets more than `most`.
    """
    _, layers, experts = slices.shape
    copies = np.ones((layers, experts))
    row = np.arange(layers)
    found = [np.tile(np.arange(experts), (layers, 1))]
    for _ in range(num_slots - experts):
        each = slices / copies
        gains = _gains(slices, copies, each)
        best = np.where(
            gains.max(axis=1) > 0.0, gains.argmax(axis=1), _open(each.sum(axis=0), copies, most)
        )
        full = copies[row, best] >= most
        best = np.where(full, _open(each.sum(axis=0), copies, most), best)
        copies[row, best] += 1.0
        found.append(best[:, np.newaxis])
    return np.concatenate(found, axis=1)


def _gains(slices: Floats, copies: Floats, each: Floats) -> Floats:
    """[layers, experts]: by how much one more copy lowers the cost."""
    row = np.arange(len(copies))
    gains = np.zeros(copies.shape)
    for load, now in zip(slices, each, strict=True):
        top = now.argmax(axis=1)
        highest = now[row, top]
        others = now.copy()
        others[row, top] = 0.0
        after = np.maximum(others.max(axis=1), load[row, top] / (copies[row, top] + 1.0))
        gains[row, top] += highest - after
    return gains


def _open(each: Floats, copies: Floats, most: int) -> Ints:
    """[layers]: hottest expert that may still have a copy; the one with fewest if none may."""
    score = np.where(copies < most, each, -copies)
    return np.asarray(score.argmax(axis=1))


def packed(
    loads: Floats, capacity: Ints, *, base: Floats | None = None, kinds: Ints | None = None
) -> Ints:
    """Positions [layers, items] of items in packs: pack after pack, in order of their coming.

    Heaviest first, each into the least loaded pack with room, of equal ones into the smallest: what
    is heavy goes where nothing has to go with it. `base` [layers, packs]: what is in them already.
    Items of one kind [layers, items] go to different packs where that is possible.
    The items fill the packs: items = sum of capacity [packs].
    """
    layers, items = loads.shape
    row = np.arange(layers)
    start = np.cumsum(capacity) - capacity
    weight = np.zeros((layers, len(capacity))) if base is None else base.astype(np.float64)
    weight += TIE * loads.max() * (capacity - capacity.min())
    used = np.zeros((layers, len(capacity)), dtype=np.int64)
    last = np.full((layers, len(capacity)), -1)
    own = np.tile(np.arange(items), (layers, 1)) if kinds is None else kinds
    order = np.lexsort((own, -loads), axis=1)
    position = np.empty((layers, items), dtype=np.int64)
    for item in order.T:
        kind = own[row, item]
        room = used < capacity
        apart = room & (last != kind[:, np.newaxis])
        allowed = np.where(apart.any(axis=1, keepdims=True), apart, room)
        pack = np.where(allowed, weight, np.inf).argmin(axis=1)
        position[row, item] = start[pack] + used[row, pack]
        weight[row, pack] += loads[row, item]
        used[row, pack] += 1
        last[row, pack] = kind
    return position


def placed(load: Floats, held: Ints, slots: ExpertSlotsView, *, apart: bool = True) -> Ints:
    """[layers, num_slots]: copies `held` [layers, num_slots] packed on dies by their loads.

    Each copy bears an even share of its expert's tokens.
    """
    each = tokens_per_copy(load, held)
    base = np.tile(np.asarray(slots.resident_tokens, dtype=np.float64), (len(held), 1))
    position = packed(each, slots_of_die(slots), base=base, kinds=held if apart else None)
    experts = np.empty_like(held)
    np.put_along_axis(experts, position, held, axis=1)
    return experts


def tokens_per_copy(load: Floats, held: Ints) -> Floats:
    """[layers, slots]: even shares of expert loads [layers, experts] for copies [layers, slots]."""
    layers, experts = load.shape
    flat = (held + experts * np.arange(layers)[:, np.newaxis]).ravel()
    copies = np.bincount(flat, minlength=load.size).reshape(load.shape)
    return np.take_along_axis(load / np.maximum(copies, 1), held, axis=1)


def fullest_die(load: Floats, experts: Ints, slots: ExpertSlotsView) -> Floats:
    """[layers]: tokens of the die that has most."""
    each = tokens_per_copy(load, experts)
    flat = slots.die_of_slot + slots.num_dies * np.arange(len(experts))[:, np.newaxis]
    size = len(experts) * slots.num_dies
    dies = np.bincount(flat.ravel(), weights=each.ravel(), minlength=size)
    return np.asarray((dies.reshape(len(experts), -1) + slots.resident_tokens).max(axis=1))
