import CoreML

/// Where Core ML means to run each operation, and its share of the cost by Core ML's own estimate.
enum ComputePlan {
    static func rows(compiled: URL, configuration: MLModelConfiguration) async throws -> [PlanRow] {
        let plan = try await MLComputePlan.load(contentsOf: compiled, configuration: configuration)
        guard case .program(let program) = plan.modelStructure, let main = program.functions["main"] else { return [] }
        return main.block.operations.compactMap { operation in
            guard let usage = plan.deviceUsage(for: operation) else { return nil }  // constants have none
            return PlanRow(
                opType: operation.operatorName,
                preferred: name(usage.preferred),
                outputName: operation.outputs.first?.name ?? "",
                supported: usage.supported.map(name),
                cost: plan.estimatedCost(of: operation)?.weight
            )
        }
    }

    static func placement(of rows: [PlanRow]) -> Placement? {
        guard !rows.isEmpty else { return nil }
        let engine = rows.filter { $0.preferred == "ANE" }
        let cost = { (rows: [PlanRow]) -> Double in rows.reduce(0) { $0 + ($1.cost ?? 0) } }
        let changes = zip(rows, rows.dropFirst()).filter { $0.preferred != $1.preferred }.count
        return Placement(
            aneFractionOps: Double(engine.count) / Double(rows.count),
            aneFractionCost: cost(rows) > 0 ? cost(engine) / cost(rows) : 0,
            segments: changes + 1
        )
    }

    private static func name(_ device: MLComputeDevice) -> String {
        switch device {
        case .cpu: return "CPU"
        case .gpu: return "GPU"
        case .neuralEngine: return "ANE"
        @unknown default: return "unknown"
        }
    }
}
