"""What a step of a method costs, beside other people's code on the same work."""
