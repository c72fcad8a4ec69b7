"""The platform-design problem: forms -> bounds -> CP-SAT -> outcome -> what binds."""
