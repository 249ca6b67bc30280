"""Experts of a group of dies: who is popular, where copies lie, what each die gets in a step."""
