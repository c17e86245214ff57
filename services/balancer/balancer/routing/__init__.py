"""Which cluster a request goes to, and what is changed on the way: pure, from a request's head to a rule."""
