//! Starting, probing and stopping serving stacks: simulated and external here, containers later.
