-- A run's generation counts its own claims; what works in a sandbox is told apart over all runs of its thread.

CREATE SEQUENCE run_claims AS bigint;
REVOKE ALL ON SEQUENCE run_claims FROM PUBLIC;
GRANT USAGE ON SEQUENCE run_claims TO :"system";
