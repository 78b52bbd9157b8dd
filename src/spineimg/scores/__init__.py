"""Clinical scores that their sources print completely: SINS, NESMS, NOMS, PNI, and the construct's numbers (Nam 2025).

Each takes a frozen record of answers, None for what is not known, and gives a `Score`: a number where everything that
counts is known, else the range that the known answers leave. Nothing here is a risk or a probability.
"""
