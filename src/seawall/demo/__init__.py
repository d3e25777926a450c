"""The shop of `seawall demo`: a service told to fail, and two clients side by side; importing this loads nothing."""
