"""What can a user choose, and what does a command line stand for?"""
