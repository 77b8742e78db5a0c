// placeholder, replaced by the native part
export {};
