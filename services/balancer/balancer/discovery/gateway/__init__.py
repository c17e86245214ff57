"""Gateways and routes from the Kubernetes Gateway API: what is asked for in objects becomes listeners, rules, statuses.

    objects     what we read of each kind, typed
    world       all objects at one moment, and the look-ups that rules need
    conditions  a condition, and what writing it leaves alone
    listeners   a Gateway's listeners: which are good, and what their certificates are
    backends    references to Services: which may and can be had
    rules       an HTTPRoute's rules as the router's
    attachment  which routes belong to which listeners
    plan        everything together: a pure function from a world to listeners, clusters and statuses

These are pure. `watch`, `writer` and `lease` speak to the API.
"""
