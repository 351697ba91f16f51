import Foundation

#if canImport(UIKit)
    import UIKit
#endif

/// What this device is, and its state right now.
enum Machine {
    static func describe() async -> Phone {
        let process = ProcessInfo.processInfo
        let version = process.operatingSystemVersion
        #if os(iOS)
            let (product, system) = (text("hw.machine"), "iOS")
        #else
            let (product, system) = (text("hw.model"), "macOS")
        #endif
        var number = "\(version.majorVersion).\(version.minorVersion)"
        if version.patchVersion > 0 { number += ".\(version.patchVersion)" }
        return Phone(
            product: product,
            chip: text("machdep.cpu.brand_string"),
            ramGb: Double(process.physicalMemory) / 1_073_741_824,
            os: "\(system) \(number)",
            osBuild: text("kern.osversion"),
            lowPower: process.isLowPowerModeEnabled,
            battery: await battery(),
            thermalStart: thermalState,
            thermalEnd: nil
        )
    }

    static var thermalState: String {
        switch ProcessInfo.processInfo.thermalState {
        case .nominal: return "nominal"
        case .fair: return "fair"
        case .serious: return "serious"
        case .critical: return "critical"
        @unknown default: return "critical"
        }
    }

    private static func battery() async -> Double? {
        #if os(iOS)
            return await MainActor.run {
                UIDevice.current.isBatteryMonitoringEnabled = true
                let level = UIDevice.current.batteryLevel
                return level < 0 ? nil : Double(level)
            }
        #else
            return nil
        #endif
    }

    private static func text(_ name: String) -> String {
        var size = 0
        guard sysctlbyname(name, nil, &size, nil, 0) == 0, size > 0 else { return "" }
        var bytes = [CChar](repeating: 0, count: size)
        guard sysctlbyname(name, &bytes, &size, nil, 0) == 0 else { return "" }
        return String(cString: bytes)
    }
}
