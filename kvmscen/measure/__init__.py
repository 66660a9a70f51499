"""`kvmscen measure`: rounds of Jobs come in, Results with figures go out; figures are kept, and
compared with kept ones.
"""
