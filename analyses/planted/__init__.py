"""Planted models: models whose answer is known, because it was put there.

``plant(families()["haystack"](), seed)`` makes one from a seed: a ``Planting`` with model, items, contrasts, and the
role of every part for each contrast. ``calibrate.run`` measures how often methods find what was planted.

- ``rules``: the tasks; ``families``: the circuits that solve them, eight of them made to mislead methods;
- ``design``, ``assemble``, ``distract``, ``symmetries``: from what parts compute to weights that do not show it;
- ``accept``, ``interchange``: whether a planting is what it says it is;
- ``roles``: what a part can be, and what each kind of method must say of it;
- ``methods``, ``applies``, ``calibrate``: hit and false-alarm rates; ``single_parts``: trainings with parts of a donor.
"""
