"""What the files say about their replicas: how long they have to end, their settings, and their privileges."""

import re
from ipaddress import ip_address, ip_network

import pytest

from tests.deploy.manifests import (
    APP,
    COMPOSE,
    DEPLOY,
    IMAGE,
    ROOT,
    Replica,
    container,
    documents,
    manifests,
    replicas,
    services,
    unit,
    workloads,
)
from whereby_trigger.config import OPTIONS, resolve

REPLICAS = list(replicas())
# docs/operating.md: whatever stops the process must give it drain_timeout, stop_grace and 10 s more.
MARGIN = 10
CREDENTIALS = re.compile(r'credential\("([^"]+)"\)')


def needed(replica: Replica) -> float:
    settings = resolve({}, environ=replica.environment).settings
    return replica.waits_before + settings.drain_timeout + settings.stop_grace + MARGIN


@pytest.mark.parametrize("replica", REPLICAS, ids=lambda replica: replica.place)
def test_a_replica_is_killed_only_after_its_drain_could_end(replica: Replica) -> None:
    assert replica.killed_after >= needed(replica)


@pytest.mark.parametrize("page", ["deploy/Dockerfile", "deploy/README.md"])
def test_a_container_run_by_hand_is_killed_only_after_its_drain_could_end(page: str) -> None:
    (run,) = re.findall(r"docker run (?:.*\\\n)*.*", (ROOT / page).read_text())
    settings = dict(re.findall(r"--env (\w+)=(\w+)", run))
    assert settings
    (stop_timeout,) = re.findall(r"--stop-timeout ([0-9]+)", run)
    assert float(stop_timeout) >= needed(Replica(page, settings, 0))


@pytest.mark.parametrize("replica", REPLICAS, ids=lambda replica: replica.place)
def test_every_variable_of_ours_is_a_setting(replica: Replica) -> None:
    known = {variable for option in OPTIONS for variable in option.environment}
    assert {name for name in replica.environment if name.startswith("WHEREBY")} <= known


def test_each_platform_mounts_the_credentials_that_the_program_reads() -> None:
    read = set(CREDENTIALS.findall(APP.read_text()))
    assert read == {"webhook-secret", "store-url"}
    (template,) = manifests("Secret")
    assert set(template["stringData"]) == read
    (compose,) = documents(COMPOSE)
    for name, service in services().items():
        if name.startswith("replica-"):
            assert set(service["secrets"]) == read <= set(compose["secrets"])
    text = (DEPLOY / "systemd/whereby-trigger.service").read_text()
    assert set(re.findall(r"LoadCredential=([\w-]+):", text)) == read


def test_in_compose_the_database_has_the_name_and_user_of_the_url_in_the_page() -> None:
    database = services()["database"]["environment"]
    (user, host, name) = re.findall(r"postgresql://(\w+):%s@(\w+):5432/(\w+)", (DEPLOY / "README.md").read_text())[0]
    assert (user, name) == (database["POSTGRES_USER"], database["POSTGRES_DB"])
    assert host in services()


def test_the_two_kinds_of_pods_differ_by_the_spill_alone() -> None:
    (deployment,), (stateful,) = manifests("Deployment"), manifests("StatefulSet")
    pods = [workload["spec"]["template"] for workload in (deployment, stateful)]
    (claim,) = stateful["spec"]["volumeClaimTemplates"]
    own = pods[1]["spec"]["containers"][0]
    (mount,) = [mount for mount in own["volumeMounts"] if mount["name"] == claim["metadata"]["name"]]
    (spill,) = [variable for variable in own["env"] if variable["name"] == "WHEREBY_TRIGGER_SPILL"]
    assert spill["value"].startswith(f"sqlite:///{mount['mountPath']}/")
    own["volumeMounts"].remove(mount)
    own["env"].remove(spill)
    for constraint in pods[0]["spec"]["topologySpreadConstraints"]:
        # A StatefulSet's pods have no such label; it replaces one at a time, so old and new need no distinction.
        assert constraint.pop("matchLabelKeys") == ["pod-template-hash"]
    assert pods[0] == pods[1]


def test_in_compose_each_replica_has_a_spill_of_its_own() -> None:
    mounted = [service["volumes"] for service in services().values() if service["image"] == IMAGE]
    assert len({volumes[0].partition(":")[0] for volumes in mounted}) == len(mounted) == 2
    for name, service in services().items():
        if service["image"] == IMAGE:
            (volume,) = service["volumes"]
            spill = service["environment"]["WHEREBY_TRIGGER_SPILL"]
            assert spill.startswith(f"sqlite:///{volume.partition(':')[2]}/"), name


def test_in_kubernetes_everything_selects_the_replicas() -> None:
    for workload in workloads():
        labels = workload["spec"]["template"]["metadata"]["labels"]
        selectors = [found["spec"]["selector"] for found in manifests("Service")]
        selectors += [found["spec"]["selector"]["matchLabels"] for found in manifests("PodDisruptionBudget")]
        selectors += [found["spec"]["podSelector"]["matchLabels"] for found in manifests("NetworkPolicy")]
        spread = workload["spec"]["template"]["spec"]["topologySpreadConstraints"]
        selectors += [constraint["labelSelector"]["matchLabels"] for constraint in spread]
        for selector in [workload["spec"]["selector"]["matchLabels"], *selectors]:
            assert selector.items() <= labels.items()


def test_in_kubernetes_each_port_by_name_is_the_one_that_is_listened_on() -> None:
    for workload in workloads():
        own = container(workload)
        environment = {variable["name"]: variable["value"] for variable in own["env"]}
        settings = resolve({}, environ=environment).settings
        assert settings.metrics_address is not None
        listened = {"http": settings.port, "metrics": settings.metrics_address[1]}
        assert {port["name"]: port["containerPort"] for port in own["ports"]} == listened
        probes = [own[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
        assert [(probe["path"], probe["port"]) for probe in probes] == [
            ("/livez", "http"),
            ("/readyz", "http"),
            ("/livez", "http"),
        ]
        (policy,) = manifests("NetworkPolicy")
        assert [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]] == ["http", "metrics"]
    targets = {
        service["metadata"]["name"]: [port["targetPort"] for port in service["spec"]["ports"]]
        for service in manifests("Service")
    }
    assert targets == {"whereby-trigger": ["http"], "whereby-trigger-metrics": ["metrics"]}


def test_in_kubernetes_only_monitoring_reaches_the_metrics_and_nothing_private_is_open_to_an_assistant() -> None:
    (policy,) = manifests("NetworkPolicy")
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    _, metrics = policy["spec"]["ingress"]
    assert metrics["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    opened = [rule for rule in policy["spec"]["egress"] if "ports" not in rule]
    excepted = [network for rule in opened for to in rule["to"] for network in to["ipBlock"]["except"]]
    for address in ("10.0.0.1", "169.254.169.254", "172.20.0.1", "192.168.1.1", "fd00::1"):
        assert any(ip_address(address) in ip_network(network) for network in excepted), address


def test_in_kubernetes_a_replica_has_an_identity_of_its_own_without_a_token() -> None:
    (account,) = manifests("ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    for workload in workloads():
        pod = workload["spec"]["template"]["spec"]
        assert pod["serviceAccountName"] == account["metadata"]["name"]
        assert pod["automountServiceAccountToken"] is False


def test_the_prometheus_operator_is_told_to_scrape_the_service_of_the_metrics_and_nothing_else() -> None:
    (monitor,) = manifests("ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    (found,) = (service for service in manifests("Service") if wanted <= service["metadata"]["labels"].items())
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in found["spec"]["ports"]}
    assert endpoint["path"] == "/metrics"
    assert monitor["spec"]["jobLabel"] in found["metadata"]["labels"]


def test_in_kubernetes_no_service_turns_into_a_setting_of_the_replicas() -> None:
    """Kubernetes sets NAME_PORT to a URL for each Service of a namespace, unless it is switched off."""
    ports = {service["metadata"]["name"].upper().replace("-", "_") + "_PORT" for service in manifests("Service")}
    ours = {variable for option in OPTIONS for variable in option.environment}
    if ports & ours:
        assert all(workload["spec"]["template"]["spec"]["enableServiceLinks"] is False for workload in workloads())


def test_nowhere_runs_a_replica_as_root_or_writes_beside_its_volumes() -> None:
    for name, service in services().items():
        if name.startswith("replica-"):
            assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    for workload in workloads():
        pod = workload["spec"]["template"]["spec"]["securityContext"]
        assert (pod["runAsNonRoot"], pod["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
        own = container(workload)["securityContext"]
        assert (own["readOnlyRootFilesystem"], own["allowPrivilegeEscalation"]) == (True, False)
    assert unit()["DynamicUser"] == ["yes"]
