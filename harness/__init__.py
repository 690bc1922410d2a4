"""The data flow, left to right; nothing flows back.

corpus -> train -> transform -> checkpoint -> engine -> quality, measurement
checkpoint -> workload + device -> projection
evidence -> row -> store -> table, plot, decision
"""
