"""<linux/kvm.h> as tables: exits, capabilities, ioctls, and the actions that fill a struct and call
one.
"""
