"""The command line: names, options and help. What a command does is in a module of its name.

The modules are imported when their command runs: help must not wait for a Kubernetes client.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from overspill import __version__
from overspill.cli.options import (
    RELEASE,
    SYSTEM_NAMESPACE,
    ContextOption,
    CostsOutput,
    Grouping,
    KubeconfigOption,
    Level,
    Output,
    OutputOption,
    ReleaseOption,
    ReportOutput,
    Since,
    SystemOption,
    Target,
)

EPILOG = (
    "Exit status: 0 done, 1 something is not ready or was not answered, "
    "2 wrong usage, 3 the cluster cannot be reached or refuses."
)
# Importing rich for the help alone would cost 70 ms.
_PLAIN: dict[str, Any] = {"no_args_is_help": True, "rich_markup_mode": None}
app = typer.Typer(
    help="Language models on your own Kubernetes GPUs, spilling over to cloud APIs.",
    epilog=EPILOG,
    add_completion=False,
    pretty_exceptions_enable=False,
    **_PLAIN,
)
keys_app = typer.Typer(help="Clients' API keys.", **_PLAIN)
crds_app = typer.Typer(help="The custom resource definitions.", **_PLAIN)
app.add_typer(keys_app, name="keys")
app.add_typer(crds_app, name="crds")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"overspill {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


@app.command("try")
def try_(
    model: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="A GGUF file. Default: a small one, loaded."
        ),
    ] = None,
) -> None:
    """See the idea on this machine: no cluster, no GPU, no key. It stays up until Ctrl-C.

    A real engine and a real gateway answer, spill to a stand-in for the cloud, and keep a budget.
    """
    from overspill.cli.extras import packages_of

    with packages_of("try"):
        from overspill.cli.trial import run as command

    raise typer.Exit(command.run(model))


@app.command()
def check(
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Only services and providers in it.")
    ] = "",
    system: SystemOption = SYSTEM_NAMESPACE,
    release: ReleaseOption = RELEASE,
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Is everything ready, and what to do if not?"""
    from overspill.cli import check as command

    ok = command.run(Target(context, kubeconfig, system, release), namespace, output)
    raise typer.Exit(0 if ok else 1)


@app.command()
def chat(
    service: Annotated[str, typer.Argument(help="Name, or namespace/name.")],
    prompt: Annotated[str, typer.Argument(help="Without it: asks, or reads a pipe.")] = "",
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Of the service, if its name says none.")
    ] = "default",
    max_tokens: Annotated[int, typer.Option(min=1, max=100_000, help="Of an answer.")] = 512,
    system: SystemOption = SYSTEM_NAMESPACE,
    release: ReleaseOption = RELEASE,
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Talk to a service, through the API server's proxy.

    The key is $OVERSPILL_API_KEY, or one that is made for the session and deleted at its end.
    """
    from overspill.cli import chat as command

    name = service if "/" in service else f"{namespace}/{service}"
    command.run(Target(context, kubeconfig, system, release), name, prompt, max_tokens, output)


@app.command()
def why(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="SERVICE|REQUEST-ID",
            help="Name or namespace/name of a service, or an answer's x-overspill-request-id.",
        ),
    ],
    replay: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SETTING=VALUE",
            help="Of a service: what its last decisions would have been, and cost, under another "
            "setting, for example scaling.maxReplicas=4. May be repeated.",
        ),
    ] = None,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Of the service, if its name says none.")
    ] = "default",
    system: SystemOption = SYSTEM_NAMESPACE,
    release: ReleaseOption = RELEASE,
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Why has a service so many replicas, or why did a request go where it went?

    And what would each other choice have cost?
    """
    from overspill.cli import why

    target = Target(context, kubeconfig, system, release)
    if why.is_request(subject):
        if replay:
            raise typer.BadParameter("only of a service, not of a request", param_hint="--replay")
        why.request(target, subject, output)
        return
    from overspill.cli import why_service

    name = subject if "/" in subject else f"{namespace}/{subject}"
    why_service.run(target, name, replay or (), output)


@app.command()
def costs(
    by: Annotated[Grouping, typer.Option(help="Whose costs.")] = Grouping.SERVICE,
    since: Annotated[
        Since | None,
        typer.Option(
            help="24h: services, own replicas and cloud. hour, day, month: calendar windows (UTC), "
            "of what has a budget. Default: 24h by service, else all windows."
        ),
    ] = None,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Only services or providers in it.")
    ] = "",
    system: SystemOption = SYSTEM_NAMESPACE,
    release: ReleaseOption = RELEASE,
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output: Annotated[
        CostsOutput,
        typer.Option("--output", "-o", help="How to print; focus: FOCUS 1.0, of 24h by service."),
    ] = CostsOutput.TEXT,
) -> None:
    """What do services cost, on the own cluster and at providers?

    No history is kept but this: the last 24 hours in each service's status (two digits, up to an
    hour old), and in the ledger this hour, day and month of services, providers and keys that have
    a budget. For other times ask Prometheus.
    """
    from overspill.cli import costs as command

    command.run(Target(context, kubeconfig, system, release), by, since, output, namespace)


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="For you, for example the client's name.")],
    tenant: Annotated[str, typer.Option(help="Namespace whose services the client uses.")],
    service: Annotated[
        list[str] | None,
        typer.Option(help="Pattern namespace/name, may be repeated. Default: all of the tenant."),
    ] = None,
    priority: Annotated[
        int, typer.Option(help="Where requests wait, higher priorities go first: -100 to 100.")
    ] = 0,
    weight: Annotated[
        int, typer.Option(help="Share among waiting keys of the same priority: 1 to 1000.")
    ] = 1,
    requests_per_minute: Annotated[
        int | None, typer.Option(help="That it may send, by all gateways. Default: any.")
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(help="Of its prompts and answers. Default: any.")
    ] = None,
    budget_per_day: Annotated[
        str, typer.Option(help="US dollars that it may cost at providers on a day (UTC).")
    ] = "",
    system: SystemOption = SYSTEM_NAMESPACE,
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Make a key and print it, once."""
    from overspill.cli import keys

    keys.create(
        Target(context, kubeconfig, system), name, tenant, tuple(service or ()), output,
        priority=priority, weight=weight, requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute, budget_per_day=budget_per_day,
    )  # fmt: skip


@keys_app.command("list")
def keys_list(
    system: SystemOption = SYSTEM_NAMESPACE,
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Who may use what?"""
    from overspill.cli import keys

    keys.list_keys(Target(context, kubeconfig, system), output)


@keys_app.command("rotate")
def keys_rotate(
    name: Annotated[str, typer.Argument(help="As given to create.")],
    overlap: Annotated[
        str, typer.Option(help="How long the key before is good, too: 0s to 720h.")
    ] = "24h",
    system: SystemOption = SYSTEM_NAMESPACE,
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Make another key for the same client and print it, once."""
    from overspill.cli import keys

    keys.rotate(Target(context, kubeconfig, system), name, overlap, output)


@keys_app.command("revoke")
def keys_revoke(
    name: Annotated[str, typer.Argument(help="As given to create.")],
    system: SystemOption = SYSTEM_NAMESPACE,
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Delete a key; it is refused within seconds."""
    from overspill.cli import keys

    keys.revoke(Target(context, kubeconfig, system), name, output)


@crds_app.command("print")
def crds_print(output: OutputOption = Output.TEXT) -> None:
    """Print the definitions of this version."""
    from overspill.cli import crds

    crds.print_definitions(output)


@crds_app.command("apply")
def crds_apply(
    system: SystemOption = SYSTEM_NAMESPACE,
    release: ReleaseOption = RELEASE,
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Install or upgrade the definitions alone; a chart installed later takes them over."""
    from overspill.cli import crds

    crds.apply(Target(context, kubeconfig, system, release), output)


@app.command()
def uninstall(
    purge: Annotated[
        bool,
        typer.Option(
            help="Also services with their engines, providers, keys, definitions, and the record "
            "of what was spent."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List only.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    system: SystemOption = SYSTEM_NAMESPACE,
    release: ReleaseOption = RELEASE,
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """List what goes, then remove it. Services and engines stay, unless --purge."""
    from overspill.cli import uninstall as command

    command.run(Target(context, kubeconfig, system, release), purge, dry_run, yes, output)


@app.command()
def gateway(
    objects: Annotated[
        Path, typer.Option(help="Folder of YAML: services, endpoints, keys, providers.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Of the API.")] = 8080,
    internal_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Of /metrics, /healthz and /readyz.")
    ] = 9090,
) -> None:
    """Run the gateway without Kubernetes; see docs/how-to/gateway-without-kubernetes.md.

    Objects are read again when their files change.
    """
    from overspill.cli import gateway as command

    command.run(objects, host, port, internal_port)


@app.command()
def simulate(
    trace: Annotated[Path, typer.Argument(help="A recorded load; a folder of ServeGen's clients.")],
    policy: Annotated[
        list[str] | None, typer.Option(help="May be repeated. Default: all that are known.")
    ] = None,
    level: Annotated[
        Level, typer.Option(help="fluid: rates, weeks in seconds. discrete: every request.")
    ] = Level.FLUID,
    ratio: Annotated[float, typer.Option(min=0.0, help="Cloud over replica, for the work.")] = 3.0,
    boot: Annotated[float, typer.Option(min=0.0, help="Seconds until a replica serves.")] = 120.0,
    capacity: Annotated[
        float, typer.Option(min=1e-6, help="Requests/s of one replica (fluid).")
    ] = 5.0,
    hourly: Annotated[float, typer.Option(min=0.0, help="USD per replica and hour.")] = 2.5,
    scale: Annotated[float, typer.Option(min=0.0, help="Times the recorded rates.")] = 1.0,
    begin: Annotated[float, typer.Option(min=0.0, help="Second of the trace to begin at.")] = 0.0,
    end: Annotated[float, typer.Option(min=0.0, help="Second to end at. Default: its end.")] = 1e18,
    learn: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of it that is only learned from (fluid).")
    ] = 0.0,
    prompt: Annotated[
        float, typer.Option(min=1.0, help="Mean prompt in tokens, for rates (discrete).")
    ] = 1000.0,
    answer: Annotated[
        float, typer.Option(min=1.0, help="Mean answer in tokens, for rates (discrete).")
    ] = 200.0,
    engine: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE",
            help="Latency of a replica (discrete): a bundled set, or what `overspill calibrate` "
            "wrote. Default: gpu.",
        ),
    ] = "",
    seed: Annotated[int, typer.Option(help="Of the arrivals that a trace gives as rates.")] = 0,
    plot: Annotated[
        Path | None, typer.Option(help="Write a chart as PNG (needs matplotlib).")
    ] = None,
    output: Annotated[
        ReportOutput, typer.Option("--output", "-o", help="How to print; html: a page by itself.")
    ] = ReportOutput.TEXT,
) -> None:
    """What would other autoscalers have cost under a recorded load? No cluster is asked."""
    from overspill.cli import simulate as command

    question = command.Question(
        trace, level, ratio, boot, capacity, hourly, scale, begin, end, learn, prompt, answer,
        engine, seed,
    )  # fmt: skip
    command.run(question, tuple(policy or ()), plot, output)


@app.command()
def calibrate(
    url: Annotated[str, typer.Argument(help="An OpenAI-compatible API: http://HOST:PORT or …/v1.")],
    model: Annotated[str, typer.Option(help="Name of the model there.")],
    key_file: Annotated[
        Path | None, typer.Option(help="File with the API key. Default: none is sent.")
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=2, max=64, help="Most requests at a time, within one batch.")
    ] = 4,
    prompt: Annotated[
        int, typer.Option(min=32, max=100_000, help="Longest prompt in words, or tokens.")
    ] = 512,
    answer: Annotated[int, typer.Option(min=8, max=10_000, help="Longest answer in tokens.")] = 64,
    seconds: Annotated[
        float, typer.Option(min=1.0, max=3600.0, help="After which no request begins.")
    ] = 60.0,
    requests: Annotated[int, typer.Option(min=8, max=1000, help="Most requests altogether.")] = 200,
    timeout: Annotated[
        float, typer.Option(min=1.0, max=3600.0, help="Seconds for one answer.")
    ] = 120.0,
    write: Annotated[
        Path | None, typer.Option(help="File for `overspill simulate --engine`.")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """How fast is a running engine? Fits the simulator's latency model with a short load.

    The endpoint should have nothing else to do, and stand on one replica. A request that fails ends
    it: nothing is known of such a batch.
    """
    from overspill.cli import calibrate as command
    from overspill.cli.calibrate_load import Plan

    plan = Plan(concurrency, prompt, answer, seconds, requests)
    command.run(url, model, timeout, key_file, plan, write, output)


def run() -> None:
    """Run the command line; end the process with its status."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        from overspill.cli.errors import CommandError

        if not isinstance(error, CommandError):
            raise
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.status)
