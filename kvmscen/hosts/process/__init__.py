"""Children that answer frames: started, asked with a deadline, killed, started anew. The agent's
pack is made here.
"""
