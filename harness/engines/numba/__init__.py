"""The project's own engine: arenas.py lays weights out, plan.py writes the fused step,
crew.py runs it on threads, session.py is the door."""
