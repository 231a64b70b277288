-- Health of an InferenceProvider: Healthy once a gateway has its key and may use it.

local health_of = { True = "Healthy", False = "Degraded", Unknown = "Progressing" }

local ready = nil
for _, condition in ipairs((obj.status or {}).conditions or {}) do
  if condition.type == "Ready" then
    ready = condition
  end
end
if ready == nil or (ready.observedGeneration or 0) < (obj.metadata.generation or 0) then
  return { status = "Progressing", message = "No gateway has tried the key of this spec yet" }
end

local message = ready.reason
if ready.message ~= nil and ready.message ~= "" then
  message = message .. ": " .. ready.message
end
return { status = health_of[ready.status], message = message }
