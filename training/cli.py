"""The command line of training: prepare -> fit -> calibrate -> evaluate -> export -> verify."""

import typer

from training.commands import learning, measuring, publishing

app = typer.Typer(
    help="Make DermHybrid's models from HAM10000. Research software, not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

app.command()(learning.prepare)
app.command()(learning.resnet50_weights)
app.command()(learning.fit)
app.command()(measuring.calibrate)
app.command()(measuring.evaluate)
app.command()(publishing.ensemble)
app.command()(measuring.robustness)
app.command()(measuring.heatmaps)
app.command()(measuring.novelty)
app.command()(measuring.quality)
app.command()(publishing.export)
app.command()(publishing.quantize)
app.command()(publishing.decide)
app.command()(publishing.verify)
app.command("sign")(publishing.sign_artifact)
app.command()(learning.ablate)
