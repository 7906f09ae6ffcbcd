//! What this machine is: provenance.
