"""How good is a prompt?"""
