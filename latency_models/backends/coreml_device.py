"""A phone or tablet attached to this Mac, through coremltools' runner app and ``xcrun devicectl``.

coremltools names a device by what its owner called it and not by its model: which model it is, the run says.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from latency_models.backends.coreml import CoreMLBackend, availability_of, missing_here
from nas.core.errors import UnavailableError
from nas.core.profile import DeviceInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from latency_models.backends.coreml import PackageOf
    from latency_models.devices import DeviceSpec
    from latency_models.jobs import Availability
    from nas.core.scenario import ComputeUnits

NAME = "coreml-device"
AUTO = "auto"


def availability() -> Availability:
    """Say whether this machine can reach a device; not whether one is attached."""
    return availability_of(missing_here("xcrun", "xcodebuild"))


def connect(
    spec: DeviceSpec, package_of: PackageOf, *, compute_units: ComputeUnits, udid: str = AUTO, team: str = ""
) -> CoreMLBackend:
    """Build, install and start coremltools' runner app on a device and return the backend of it.

    Args:
        spec: The device's model, as the run says.
        package_of: Package of a job.
        compute_units: Core ML setting.
        udid: Which device, or ``auto`` for the only one that is connected.
        team: Apple developer team that signs the app.

    Raises:
        UnavailableError: This is no Mac with Xcode, no such device is connected, or the app cannot be built.
    """
    state = availability()
    if not state.available:
        raise UnavailableError(
            f"backend 'coreml_device' cannot measure here: it {state.reason}",
            hint="`nas profile RUN --kit DIR` writes a kit that a Mac and the phone measure without this toolkit",
        )
    target = _prepared(choose(connected_devices(), udid), team)
    device = DeviceInfo(
        name=spec.name,
        chip=spec.chip,
        compute_unit=spec.unit_for(compute_units).compute_unit,
        threads=1,
        memory_mb=spec.ram_mb.value,
        os_build=target.os_build_number,
        software="Core ML",
        os=f"iOS {target.os_version}",
    )
    return CoreMLBackend(NAME, device, package_of, compute_units=compute_units, target=target)


def connected_devices() -> list[Any]:
    """Return coremltools' devices that are connected, phones first.

    Raises:
        UnavailableError: ``xcrun devicectl`` failed.
    """
    from coremltools.models.ml_program.experimental.remote_device import Device, DeviceType, _DeviceCtlError

    try:
        return [
            device
            for kind in (DeviceType.IPHONE, DeviceType.IPAD)
            for device in Device.get_connected_devices(device_type=kind)
        ]
    except (_DeviceCtlError, ValueError, OSError) as error:
        raise UnavailableError(f"xcrun devicectl does not list devices: {error}", hint="open Xcode once") from error


def choose(devices: Sequence[Any], udid: str) -> Any:
    """Return the device of an identifier, or the only one.

    Raises:
        UnavailableError: There is none, or there are several and none is named.
    """
    listed = ", ".join(f"{device.name} ({device.udid})" for device in devices) or "none"
    wanted = [device for device in devices if udid in (AUTO, device.udid, device.identifier)]
    if len(wanted) == 1:
        return wanted[0]
    what = "several devices are" if wanted else "no device is" if udid == AUTO else f"device {udid!r} is not"
    raise UnavailableError(
        f"{what} connected; connected are: {listed}",
        hint="unlock the phone, allow developer mode, and name it by profile.backend.udid",
    )


def _prepared(device: Any, team: str) -> Any:
    from coremltools.models.ml_program.experimental.remote_device import (
        AppSigningCredentials,
        _AppBuilder,
        _DeviceCtlError,
    )

    credentials = AppSigningCredentials(development_team=team)
    try:
        return asyncio.run(device.prepare_for_model_debugging(credentials=credentials))
    except (_DeviceCtlError, _AppBuilder.Error, ValueError, OSError) as error:
        raise UnavailableError(
            f"coremltools' runner cannot be started on {device.name!r}: {error}",
            hint="set profile.backend.development_team to your Apple developer team",
        ) from error
