"""What do the commands print, and when do they stop?"""
