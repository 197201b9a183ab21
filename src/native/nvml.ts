// A GPU's state as its driver tells it, through NVML: libnvidia-ml.so.1 comes with the driver.

import { dlopen } from "bun:ffi"
import { UserError } from "../errors.ts"

const FILE = "libnvidia-ml.so.1"
const CLOCK_SM = 1 // nvmlClockType_t
const CLOCK_MEMORY = 2
const SENSOR_GPU = 0 // nvmlTemperatureSensors_t

/** What -lg logs: shares in percent, MHz, watts, °C. What a device does not tell is left out. */
export interface DeviceState {
  /** Of the time since it was last asked, in which a kernel ran, and in which memory was accessed. */
  utilization?: number
  memoryUtilization?: number
  clockMHz?: number
  memoryClockMHz?: number
  powerW?: number
  powerLimitW?: number
  temperatureC?: number
}

const number = { returns: "i32" } as const

function bind() {
  return dlopen(FILE, {
    nvmlInit_v2: { args: [], ...number },
    nvmlDeviceGetHandleByPciBusId_v2: { args: ["ptr", "ptr"], ...number },
    nvmlDeviceGetUtilizationRates: { args: ["u64", "ptr"], ...number },
    nvmlDeviceGetClockInfo: { args: ["u64", "i32", "ptr"], ...number },
    nvmlDeviceGetPowerUsage: { args: ["u64", "ptr"], ...number },
    nvmlDeviceGetEnforcedPowerLimit: { args: ["u64", "ptr"], ...number },
    nvmlDeviceGetTemperature: { args: ["u64", "i32", "ptr"], ...number },
  }).symbols
}

export class DeviceMonitor {
  private constructor(
    private readonly nvml: ReturnType<typeof bind>,
    private readonly handle: bigint,
  ) {}

  /** The GPU at that address on the bus. Throws a UserError where NVML, or the GPU, is not there. */
  static open(bus: string): DeviceMonitor {
    const wrong = (why: string) => new UserError(`--log-device: ${why} (leave it out)`)
    let nvml: ReturnType<typeof bind>
    try {
      nvml = bind()
    } catch {
      throw wrong(`there is no ${FILE}, which comes with NVIDIA's driver`)
    }
    const handle = new BigUint64Array(1)
    const status =
      nvml.nvmlInit_v2() || nvml.nvmlDeviceGetHandleByPciBusId_v2(Buffer.from(`${bus}\0`), handle)
    if (status !== 0) throw wrong(`NVML says ${status} for the GPU at ${bus || "no address"}`)
    return new DeviceMonitor(nvml, handle[0]!)
  }

  state(): DeviceState {
    const { nvml, handle } = this
    const values = new Uint32Array(2) // of some calls the first alone
    const ask = (status: number, unit = 1) => (status === 0 ? values[0]! / unit : undefined)
    const utilization = ask(nvml.nvmlDeviceGetUtilizationRates(handle, values))
    const memoryUtilization = utilization === undefined ? undefined : values[1]
    return {
      utilization,
      memoryUtilization,
      clockMHz: ask(nvml.nvmlDeviceGetClockInfo(handle, CLOCK_SM, values)),
      memoryClockMHz: ask(nvml.nvmlDeviceGetClockInfo(handle, CLOCK_MEMORY, values)),
      powerW: ask(nvml.nvmlDeviceGetPowerUsage(handle, values), 1000),
      powerLimitW: ask(nvml.nvmlDeviceGetEnforcedPowerLimit(handle, values), 1000),
      temperatureC: ask(nvml.nvmlDeviceGetTemperature(handle, SENSOR_GPU, values)),
    }
  }
}
