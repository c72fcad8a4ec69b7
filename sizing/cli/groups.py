"""A command group that proposes the nearest command for one it does not have."""

import click


class Suggesting(click.Group):
    """A group whose unknown commands are answered with the nearest ones."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name, or fail with the nearest."""
        from model_ops.errors import nearest

        known = self.list_commands(ctx)
        if args[0] not in known:
            ctx.fail(f"No such command '{args[0]}'{nearest(args[0], known)}")
        return super().resolve_command(ctx, args)
