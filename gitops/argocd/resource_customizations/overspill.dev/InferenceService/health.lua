-- Health of an InferenceService, from its conditions. Ready says whether a request sent now would be
-- answered within policy, so zero replicas by design and a full cluster with a usable provider are
-- Healthy. While replicas still run an older spec it is Progressing, and a fault of the model or the
-- replicas is Degraded even while older replicas or a provider answer: what was committed does not
-- run.

-- Reasons for which nothing is wrong: replicas come, change, or wait for room.
local on_the_way = {
  Loading = true,
  Starting = true,
  RollingOut = true,
  Unschedulable = true,
  Provisioning = true,
  QuotaExceeded = true,
  ClusterShared = true,
  SchedulingGated = true,
  WaitingForCapacity = true,
}

local function health(status, message)
  return { status = status, message = message }
end

local function text(condition)
  local message = condition.reason or condition.type
  if condition.message ~= nil and condition.message ~= "" then
    message = message .. ": " .. condition.message
  end
  return message
end

local status = obj.status or {}
local found = {}
for _, condition in ipairs(status.conditions or {}) do
  found[condition.type] = condition
end
local ready = found.Ready

if ready == nil or (ready.observedGeneration or 0) < (obj.metadata.generation or 0) then
  return health("Progressing", "The operator has not looked at this spec yet")
end

for _, name in ipairs({ "ModelReady", "ReplicasReady" }) do
  local condition = found[name]
  if condition ~= nil and condition.status == "False" and not on_the_way[condition.reason] then
    return health("Degraded", name .. ": " .. text(condition))
  end
end

if ready.status == "True" then
  if found.ReplicasReady ~= nil and found.ReplicasReady.reason == "RollingOut" then
    return health("Progressing", text(found.ReplicasReady))
  end
  for _, name in ipairs({ "SpilloverReady", "WithinBudget", "ScalingActive" }) do
    if found[name] ~= nil and found[name].status == "False" then
      return health("Healthy", text(ready) .. "; but " .. name .. " is False: " .. text(found[name]))
    end
  end
  return health("Healthy", text(ready))
end
if ready.reason == "SchedulingGated" then
  return health("Suspended", text(ready))
end
if ready.status == "Unknown" or on_the_way[ready.reason] then
  return health("Progressing", text(ready))
end
return health("Degraded", text(ready))
